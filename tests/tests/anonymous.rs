//! Somebody without a certificate of the agency dials a camera, in the street or at the dock: neither the camera's serial
//! nor the station is told, and not a byte of an inventory.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use link::credentials::{load_chain, load_key};
use link::tls::provider;
use protocol::codec;
use protocol::identity::claimed_identity;
use protocol::message::CAMERA_HOP;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tests::double::{Visitor, block_on, repeater_hello};
use tests::footage::{contains, footage};
use tests::relay::Relay;
use tests::station::{Plan, STATION, Station};
use tests::wait::until;

/// Believes everyone, and keeps what it is shown.
#[derive(Debug, Default)]
struct Believer(Mutex<Vec<Vec<u8>>>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0
            .lock()
            .unwrap()
            .extend([leaf].into_iter().chain(rest).map(|c| c.to_vec()));
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Dials with the credentials in a folder or with none, says hello, and gives everything that came, certificates and bytes.
async fn everything_told(address: SocketAddr, credentials: Option<&Path>) -> Vec<Vec<u8>> {
    let believer = Arc::new(Believer::default());
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&believer) as Arc<dyn ServerCertVerifier>);
    let mut tls = match credentials {
        None => tls.with_no_client_auth(),
        Some(folder) => {
            let (chain, key) = (
                load_chain(&folder.join("chain.pem")),
                load_key(&folder.join("key.pem")),
            );
            tls.with_client_auth_cert(chain.unwrap(), key.unwrap())
                .unwrap()
        }
    };
    tls.alpn_protocols = vec![CAMERA_HOP.as_bytes().to_vec()];
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(
        QuicClientConfig::try_from(tls).unwrap(),
    )));
    let mut told = Vec::new();
    if let Ok(connection) = endpoint
        .connect(address, "camera.bwc.invalid")
        .unwrap()
        .await
    {
        // In TLS 1.3 the client is done before the server has judged it: say hello as a repeater would, and listen.
        if let Ok((mut send, mut recv)) = connection.open_bi().await {
            let _ = send
                .write_all(&codec::encode(&repeater_hello(None, true)).unwrap())
                .await;
            let mut buffer = vec![0; 4096];
            while let Ok(Some(n)) = recv.read(&mut buffer).await {
                told.push(buffer[..n].to_vec());
            }
        }
        let closed = tokio::time::timeout(Duration::from_secs(10), connection.closed()).await;
        told.push(format!("{:?}", closed.expect("the camera closes the connection")).into_bytes());
    }
    assert_eq!(told.len(), 1, "the camera said something: {told:?}");
    told.extend(believer.0.lock().unwrap().drain(..));
    told
}

#[test]
fn a_dialler_without_a_certificate_learns_neither_serial_nor_station() {
    // The lowest number whose digits are in no time of day: a certificate says from when and until when it holds.
    let station = Station::new(Plan {
        cameras: 66,
        ..Plan::default()
    });
    let mut camera = station.camera(66);
    camera.seal(&footage(1, 1000), &["--officer", "Kim Min-ji"]);
    camera.serve();
    let wire = Relay::recording(camera.address());
    let mut told = block_on(everything_told(wire.address(), None));
    let certificate = CertificateDer::from(told[1].clone());
    let shown = claimed_identity(&certificate);
    assert!(shown.contains("urn:bwc:camera:"), "{shown}");
    told.push(wire.recorded());
    assert!(told.len() >= 4, "certificates and datagrams were captured");
    for secret in ["BWC-0066", "BWC-", "0066", STATION, "Kim", "Min-ji"] {
        for bytes in &told {
            assert!(
                !contains(bytes, secret.as_bytes()),
                "{secret} in {:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
    until("the camera logs whom it refused", || {
        camera.server().log().contains("no certificate was sent")
    });
    // The same camera tells a repeater of the agency at once.
    let hello = block_on(async { Visitor::dial(&station, wire.address()).await.hello });
    assert_eq!(hello.versions, [1]);
}

#[test]
fn strangers_the_wrong_role_and_the_revoked_learn_no_more_and_are_logged() {
    let station = Station::new(Plan::default());
    let elsewhere = Station::new(Plan::default());
    let repeater = format!("repeaters/{STATION}-1");
    station.agency.add_repeater("stolen", 2).unwrap();
    station
        .agency
        .revoke(&station.agency.path("repeaters/stolen-2/chain.pem"))
        .unwrap();
    let mut camera = station.camera(1);
    camera.seal(&footage(1, 1000), &[]);
    let address = camera.serve();
    let cases = [
        (elsewhere.agency.path(&repeater), "unknown_ca"),
        (station.agency.path("archives/site-a"), "wrong_usage"),
        (station.agency.path("repeaters/stolen-2"), "revoked"),
    ];
    for (folder, reason) in cases {
        let told = block_on(everything_told(address, Some(&folder)));
        let all = told.concat();
        assert!(
            !contains(&all, b"BWC-") && !contains(&all, STATION.as_bytes()),
            "{reason}"
        );
        until(&format!("the camera logs `{reason}`"), || {
            camera.server().log().contains(reason)
        });
    }
}
