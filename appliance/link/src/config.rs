//! How every party reads its TOML: unknown keys are refused, and an error names file, line, key, why, and how to mend
//! it. The party says which keys there are (a serde struct with `deny_unknown_fields`) and what may stand in
//! them; this module reads, points and explains.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::de::DeserializeOwned;
use toml::Spanned;

/// A configuration file is at most so long.
const FILE_BYTES: u64 = 1 << 20;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    #[diagnostic(help("name the configuration file: --config FILE"))]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
    /// Something in the file is wrong.
    #[error("{what}")]
    Invalid {
        /// Which key, and why.
        what: String,
        /// How to mend it.
        #[help]
        mend: String,
        /// The file.
        #[source_code]
        source_code: std::sync::Arc<NamedSource<String>>,
        /// Where in it.
        #[label("here")]
        at: SourceSpan,
    },
}

/// A configuration file's text, for pointing into it.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`].
    pub fn open(path: &Path) -> Result<Source, ConfigError> {
        let unreadable = |e: std::io::Error| ConfigError::Unreadable {
            path: path.display().to_string(),
            why: e.to_string(),
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Ok(Source::new(&path.display().to_string(), text))
    }

    /// Takes text; `name` stands in errors.
    #[must_use]
    pub fn new(name: &str, text: String) -> Source {
        Source {
            name: name.to_owned(),
            text,
        }
    }

    /// Reads the keys. `keys` lists those that there are, for the mend.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] at the place where the text is not TOML, or a key unknown, missing or of the
    /// wrong type.
    pub fn parse<T: DeserializeOwned>(&self, keys: &str) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|e| {
            let mend = format!("correct or remove it; the keys are {keys}");
            self.invalid(e.span().unwrap_or(0..0), e.message(), &mend)
        })
    }

    /// An error at a place.
    #[must_use]
    pub fn invalid(&self, at: Range<usize>, what: &str, mend: &str) -> ConfigError {
        ConfigError::Invalid {
            what: what.to_owned(),
            mend: mend.to_owned(),
            source_code: std::sync::Arc::new(NamedSource::new(&self.name, self.text.clone())),
            at: at.into(),
        }
    }

    /// A value of a key, parsed; what `parse` answers says how to mend it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] at the value.
    pub fn value<T>(
        &self,
        given: &Spanned<String>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let what = format!("{key}: `{}` cannot be used", given.get_ref());
        parse(given.get_ref()).map_err(|mend| self.invalid(given.span(), &what, &mend))
    }

    /// A number of a key, within bounds.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] at the value.
    pub fn within(
        &self,
        given: Option<&Spanned<u64>>,
        key: &str,
        bounds: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        let Some(given) = given else {
            return Ok(default);
        };
        if bounds.contains(given.get_ref()) {
            return Ok(*given.get_ref());
        }
        let what = format!("{key}: {} is out of range", given.get_ref());
        Err(self.invalid(
            given.span(),
            &what,
            &format!("use {} to {}", bounds.start(), bounds.end()),
        ))
    }
}
