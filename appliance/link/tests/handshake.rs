//! Real handshakes over loopback: who is refused, and how that is said and counted.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Server, Trial, dialer, loopback};
use link::clock::Clock;
use link::credentials::{CredentialFiles, Credentials, Keyring};
use link::endpoint_keys::EndpointKeys;
use link::quic::{Dialer, Hop, LinkError};
use link::random::Random;
use link::tasks::current_thread;
use protocol::identity::{Identity, Role};
use protocol::ids::Time;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

const DAY_MS: i64 = 86_400_000;

/// The dialler may learn of its refusal only after its side of the handshake: waits for the verdict.
async fn refused_by(server: &Server, dialer: &Dialer, reason: &str) {
    let outcome = dialer.connect(server.address).await;
    if let Ok(peer) = outcome {
        let end = tokio::time::timeout(Duration::from_secs(5), peer.connection.closed())
            .await
            .unwrap();
        let text = link::quic::explain(&end);
        assert!(text.starts_with("the peer refused us"), "{text}");
    }
    for _ in 0..100 {
        if server.refusals.count(reason) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        server.refusals.count(reason),
        1,
        "{reason}: {:?}",
        server.refusals.counts()
    );
    assert!(
        server.accepted.is_empty(),
        "a refused peer is never returned"
    );
}

#[test]
fn a_peer_in_the_wrong_role_is_refused() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        // A camera that dials a camera: its certificate may dial, at an 802.1X port, and its role may not.
        let server = Server::start(Hop::Camera, trial.camera(), &clock).await;
        let (camera, _) = dialer(Hop::Camera, trial.camera(), &clock).await;
        refused_by(&server, &camera, "wrong_role").await;
        // A camera where a site is expected: the dialler refuses.
        let keys = EndpointKeys::fresh(&Random::system());
        let impostor =
            Server::start_at(loopback(0), Hop::Archive, trial.camera(), &clock, &keys).await;
        let (repeater, refusals) = dialer(Hop::Archive, trial.repeater(), &clock).await;
        let outcome = repeater.connect(impostor.address).await;
        assert!(
            matches!(
                outcome,
                Err(LinkError::Refused {
                    expected: Role::Archive,
                    ..
                })
            ),
            "{outcome:?}"
        );
        assert_eq!(refusals.count("wrong_role"), 1);
    })
    .unwrap();
}

#[test]
fn another_agency_is_refused_by_both_sides() {
    let (ours, theirs) = (Trial::new(), Trial::new());
    current_thread(async {
        let clock = Clock::system();
        let server = Server::start(Hop::Camera, ours.camera(), &clock).await;
        let (stranger, refusals) = dialer(Hop::Camera, theirs.repeater(), &clock).await;
        let outcome = stranger.connect(server.address).await;
        assert!(
            matches!(outcome, Err(LinkError::Refused { .. })),
            "{outcome:?}"
        );
        assert_eq!(refusals.count("unknown_ca"), 1);
        // The same, by a stranger who believes everybody.
        let believing = Keyring::new(Credentials {
            trust: ours.camera().current().trust.clone(),
            ..(*theirs.repeater().current()).clone()
        });
        let (stranger, _) = dialer(Hop::Camera, believing, &clock).await;
        refused_by(&server, &stranger, "unknown_ca").await;
    })
    .unwrap();
}

#[test]
fn a_revoked_repeater_is_refused_after_a_reload_without_restart() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let keyring = trial.camera();
        let mut server = Server::start(Hop::Camera, keyring.clone(), &clock).await;
        let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &clock).await;
        let _session = repeater.connect(server.address).await.unwrap();
        server.next().await;
        let revoked = trial.agency.revoke(&trial.repeater_files().chain).unwrap();
        assert_eq!(revoked, Identity::repeater("trial", 1).unwrap());
        keyring.replace(Credentials::load(&trial.camera_files(), Role::Camera).unwrap());
        refused_by(&server, &repeater, "revoked").await;
    })
    .unwrap();
}

#[test]
fn dates_count_where_the_clock_is_set() {
    let trial = Trial::new();
    current_thread(async {
        let now = Clock::system();
        let late = Clock::offset(401 * DAY_MS);
        let early = Clock::offset(-2 * DAY_MS);
        let day_off = Clock::offset(-DAY_MS + 60_000);
        let unset = Clock::starting_at(Time(0));
        for (clock, reason) in [(&late, "expired"), (&early, "not_yet_valid")] {
            let server = Server::start(Hop::Camera, trial.camera(), clock).await;
            let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &now).await;
            refused_by(&server, &repeater, reason).await;
        }
        for clock in [&day_off, &unset] {
            let mut server = Server::start(Hop::Camera, trial.camera(), clock).await;
            let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &now).await;
            let _session = repeater.connect(server.address).await.unwrap();
            server.next().await;
        }
        // An archive has no excuse, and neither has a repeater.
        let server = Server::start(Hop::Archive, trial.site(), &unset).await;
        let (repeater, _) = dialer(Hop::Archive, trial.repeater(), &now).await;
        refused_by(&server, &repeater, "not_yet_valid").await;
        let server = Server::start(Hop::Archive, trial.site(), &now).await;
        let (repeater, refusals) = dialer(Hop::Archive, trial.repeater(), &unset).await;
        assert!(matches!(
            repeater.connect(server.address).await,
            Err(LinkError::Refused { .. })
        ));
        assert_eq!(refusals.count("not_yet_valid"), 1);
    })
    .unwrap();
}

#[test]
fn the_wrong_protocol_is_refused() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let server = Server::start(Hop::Camera, trial.camera(), &clock).await;
        let (repeater, _) = dialer(Hop::Archive, trial.repeater(), &clock).await;
        refused_by(&server, &repeater, "wrong_protocol").await;
    })
    .unwrap();
}

/// Believes every server and keeps what it was shown.
#[derive(Debug)]
struct Nosy(Arc<Mutex<Vec<CertificateDer<'static>>>>);

impl ServerCertVerifier for Nosy {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = std::iter::once(leaf)
            .chain(rest)
            .map(|c| c.clone().into_owned());
        self.0.lock().unwrap().extend(shown);
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[test]
fn a_dialler_without_certificate_learns_the_link_certificate_and_no_more() {
    let trial = Trial::new();
    current_thread(async {
        let server = Server::start(Hop::Camera, trial.camera(), &Clock::system()).await;
        let shown = Arc::new(Mutex::new(vec![]));
        let mut tls = rustls::ClientConfig::builder_with_provider(link::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Nosy(Arc::clone(&shown))))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"bwc-offload/1".to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client(loopback(0)).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connecting = endpoint
            .connect_with(config, server.address, "camera.bwc.invalid")
            .unwrap();
        if let Ok(connection) = connecting.await {
            assert!(connection.accept_bi().await.is_err());
            assert!(connection.accept_uni().await.is_err());
        }
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if server.refusals.count("no_certificate") > 0 {
                break;
            }
        }
        assert_eq!(
            server.refusals.count("no_certificate"),
            1,
            "{:?}",
            server.refusals.counts()
        );
        assert!(server.accepted.is_empty());
        let shown = shown.lock().unwrap();
        assert_eq!(shown.len(), 2);
        for secret in ["BWC-0001", "trial"] {
            let seen = shown
                .iter()
                .any(|c| c.windows(secret.len()).any(|w| w == secret.as_bytes()));
            assert!(!seen, "{secret} is in the certificates");
        }
    })
    .unwrap();
}

#[test]
fn credentials_that_do_not_fit_name_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let trial = Trial::new();
    let error = |files: &CredentialFiles, role| Credentials::load(files, role).unwrap_err();
    let named = |error: &link::credentials::CredentialError, path: &Path| {
        assert_eq!(error.path, path, "{error}");
    };
    let files = trial.repeater_files();
    named(&error(&files, Role::Archive), &files.chain);
    let mut mixed = files.clone();
    mixed.key = trial.site_files().key;
    named(&error(&mixed, Role::Repeater), &mixed.key);
    let mut missing = files.clone();
    missing.trust = trial.agency.path("none.pem");
    named(&error(&missing, Role::Repeater), &missing.trust);
    let mut no_list = files.clone();
    no_list.crl = Some(trial.agency.path("trust.pem"));
    named(
        &error(&no_list, Role::Repeater),
        no_list.crl.as_ref().unwrap(),
    );
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let open = error(&files, Role::Repeater);
    named(&open, &files.key);
    assert!(open.to_string().contains("chmod 600"), "{open}");
}
