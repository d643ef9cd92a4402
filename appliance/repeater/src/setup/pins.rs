//! Whom a box was told to believe: the fingerprints of its agency's root, each from a place that whoever forges an
//! enrolment file does not hold.
//!
//! | place | who wrote it |
//! |---|---|
//! | `--agency` | the installer, from the agency's paper |
//! | `repeater.agency=` of the kernel's command line | whoever made the image: it is part of what the firmware checks |
//! | the credential `repeater.agency` | whoever starts a virtual machine; an image in service takes none |
//! | `trust.pem` | the agency that the box belongs to already |
//!
//! Where several say something, a file has to satisfy each: a box that belongs to one agency is not moved to another by
//! an installer's word alone, but by `--replace`, which leaves the last of them out.

use std::path::Path;

use link::enrolment::{fingerprints, parse_fingerprint};
use link::service;
use protocol::ids::Digest;

/// What one place says.
type Said = Vec<Digest>;

/// The fingerprints that satisfy all places; none where no place says anything.
///
/// # Errors
/// A place whose words are none, or two that contradict each other.
pub(super) fn known(given: &[String], etc: &Path, replace: bool) -> Result<Vec<Digest>, String> {
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let credential = service::credentials_folder()
        .and_then(|folder| std::fs::read_to_string(folder.join("repeater.agency")).ok());
    let own = match replace {
        true => None,
        false => std::fs::read_to_string(etc.join("trust.pem")).ok(),
    };
    let mut places = vec![
        said("--agency", given)?,
        said(
            "repeater.agency= of the kernel's command line",
            &of_command_line(&cmdline),
        )?,
        said(
            "the credential repeater.agency",
            &words(credential.as_deref()),
        )?,
    ];
    if let Some(pem) = own {
        let known = fingerprints(&pem).map_err(|e| format!("{}/trust.pem: {e}", etc.display()))?;
        places.push(known);
    }
    all(&places)
}

fn of_command_line(text: &str) -> Vec<String> {
    let values = text
        .split_whitespace()
        .filter_map(|w| w.strip_prefix("repeater.agency="));
    values
        .flat_map(|v| v.split(','))
        .map(str::to_owned)
        .collect()
}

fn words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn said(place: &str, words: &[String]) -> Result<Said, String> {
    let parse = |word: &String| {
        parse_fingerprint(word).ok_or_else(|| {
            format!("{place}: `{}` is no fingerprint; write the 64 hexadecimal digits that `agency enrol` prints", word.escape_default())
        })
    };
    words.iter().map(parse).collect()
}

fn all(places: &[Said]) -> Result<Vec<Digest>, String> {
    let mut said = places.iter().filter(|p| !p.is_empty());
    let Some(first) = said.next() else {
        return Ok(vec![]);
    };
    let rest: Vec<&Said> = said.collect();
    let agreed = first.iter().filter(|d| rest.iter().all(|p| p.contains(d)));
    let agreed: Vec<Digest> = agreed.copied().collect();
    match agreed.is_empty() {
        false => Ok(agreed),
        true => Err(
            "what --agency, the image and this box's own trust.pem say of the agency contradicts itself; a box changes its agency by --replace"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_place_that_says_something_is_to_be_satisfied() {
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        assert_eq!(all(&[vec![], vec![]]).unwrap(), []);
        assert_eq!(all(&[vec![a], vec![], vec![b, a]]).unwrap(), [a]);
        assert!(all(&[vec![a], vec![b]]).is_err());
    }

    #[test]
    fn the_command_line_and_people_write_fingerprints_and_nothing_else() {
        let hex = "ab".repeat(32);
        let line = format!("ro quiet repeater.agency={hex} repeater.agency2=x");
        assert_eq!(
            said("x", &of_command_line(&line)).unwrap(),
            [Digest([0xab; 32])]
        );
        assert!(said("x", &of_command_line("repeater.agency=none")).is_err());
    }
}
