//! An S3-compatible store, over hyper and the same rustls as everything else here.
//!
//! Each object is one PUT, with its SHA-256 as the checksum that the store verifies before it answers, and
//! with `If-None-Match: *`, so that nothing is written over. Retention (Object Lock) is the bucket's default,
//! set by its owner. Keys come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
//! AWS_SESSION_TOKEN), never from a file of this program. TLS 1.3 only; plain HTTP only where it is allowed.
//!
//! What makes the store's 200 durable is for its owner to know and to state (`durability`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::S3;
use crate::limits;

/// Where Debian and its like keep the authorities that the system trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Opens a bucket, at a prefix that may be empty.
///
/// # Errors
/// What is missing or wrong, in words; nothing is sent yet.
pub fn open(bucket: &str, prefix: &str, settings: &S3) -> Result<Arc<dyn ObjectStore>, String> {
    let key =
        |name: &str| std::env::var(name).map_err(|_| format!("{name} is not in the environment"));
    let connector = Connector {
        authorities: settings.ca.clone(),
        allow_http: settings.allow_http,
    };
    let retry = RetryConfig {
        max_retries: limits::S3_RETRIES,
        retry_timeout: limits::S3_RETRIES_WITHIN,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(settings.region.as_deref().unwrap_or("us-east-1"))
        .with_access_key_id(key("AWS_ACCESS_KEY_ID")?)
        .with_secret_access_key(key("AWS_SECRET_ACCESS_KEY")?)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_allow_http(settings.allow_http)
        .with_retry(retry)
        .with_http_connector(connector);
    if let Ok(token) = std::env::var("AWS_SESSION_TOKEN") {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let store = builder.build().map_err(|e| e.to_string())?;
    Ok(match prefix {
        "" => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    })
}

/// Makes the HTTP client that the store uses.
#[derive(Debug)]
struct Connector {
    authorities: Option<PathBuf>,
    allow_http: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let path = self
            .authorities
            .as_deref()
            .unwrap_or(Path::new(SYSTEM_AUTHORITIES));
        let roots =
            authorities(path, self.allow_http).map_err(|why| object_store::Error::Generic {
                store: "S3",
                source: why.into(),
            })?;
        let config = rustls::ClientConfig::builder_with_provider(link::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| object_store::Error::Generic {
                store: "S3",
                source: e.into(),
            })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new().with_tls_config(config);
        let https = if self.allow_http {
            https.https_or_http()
        } else {
            https.https_only()
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(limits::S3_IDLE_CONNECTIONS)
            .build(https.enable_http1().build());
        Ok(HttpClient::new(Service(client)))
    }
}

/// The certificates of a PEM file. None are needed where plain HTTP is allowed and the file is not there.
fn authorities(path: &Path, allow_http: bool) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = match CertificateDer::pem_file_iter(path) {
        Ok(certificates) => certificates,
        Err(_) if allow_http => return Ok(roots),
        Err(error) => {
            return Err(format!(
                "{}: {error}; name a PEM file of authorities (`ca`)",
                path.display()
            ));
        }
    };
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if roots.is_empty() && !allow_http {
        return Err(format!(
            "{} holds no certificate that can be used",
            path.display()
        ));
    }
    Ok(roots)
}

#[derive(Debug)]
struct Service(Client<HttpsConnector<TcpConnector>, HttpRequestBody>);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = tokio::time::timeout(limits::S3_ANSWER, self.0.request(request)).await;
        let answered = answered.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?;
        let response = answered.map_err(|error| {
            let kind = if error.is_connect() {
                HttpErrorKind::Connect
            } else {
                HttpErrorKind::Interrupted
            };
            HttpError::new(kind, error)
        })?;
        let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
        Ok(response.map(|body| HttpResponseBody::new(body.map_err(broken))))
    }
}
