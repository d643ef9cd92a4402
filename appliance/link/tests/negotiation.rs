//! What both sides agree on: TLS 1.3, X25519MLKEM768, AES-GCM; no ticket, no early data. Asserted on the very
//! configurations that QUIC uses.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;

use link::agency::{TrialOptions, trial};
use link::clock::Clock;
use link::credentials::{CredentialFiles, Credentials};
use link::random::Random;
use link::refusals::Refusals;
use link::tls::{Dates, PeerCheck, Verdict, client_config, server_config};
use protocol::identity::Role;
use rustls::quic::{ClientConnection, KeyChange, ServerConnection, Version};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

fn check(credentials: &Credentials, expected: Role) -> PeerCheck {
    PeerCheck {
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        expected,
        trust: credentials.trust.clone(),
        clock: Clock::system(),
        dates: Dates::Enforced,
        refusals: Refusals::new(),
        verdict: Verdict::default(),
    }
}

/// Carries one side's handshake bytes to the other; whether there were any.
fn carry(
    write: &mut dyn FnMut(&mut Vec<u8>) -> Option<KeyChange>,
    read: &mut dyn FnMut(&[u8]),
) -> bool {
    let mut any = false;
    loop {
        let mut bytes = vec![];
        let change = write(&mut bytes);
        read(&bytes);
        any |= !bytes.is_empty();
        if change.is_none() {
            return any;
        }
    }
}

#[test]
fn tls_13_with_post_quantum_key_exchange_and_nothing_to_resume() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrialOptions {
        cameras: 1,
        ..TrialOptions::default()
    };
    let agency = trial(
        &dir.path().join("trial"),
        &options,
        &Clock::system(),
        &Random::system(),
    )
    .unwrap();
    let load = |chain: &str, key: &str, role| {
        let trust = agency.path("trust.pem");
        let files = CredentialFiles {
            chain: agency.path(chain),
            key: agency.path(key),
            trust,
            crl: None,
        };
        Credentials::load(&files, role).unwrap()
    };
    let camera = load(
        "cameras/BWC-0001/link.pem",
        "cameras/BWC-0001/link.key",
        Role::Camera,
    );
    let repeater = load(
        "repeaters/trial-1/chain.pem",
        "repeaters/trial-1/key.pem",
        Role::Repeater,
    );

    let client =
        client_config(&repeater, b"bwc-offload/1", check(&repeater, Role::Camera)).unwrap();
    let server = server_config(&camera, b"bwc-offload/1", check(&camera, Role::Repeater)).unwrap();
    assert!(!client.enable_early_data);
    assert_eq!(
        (server.max_early_data_size, server.send_tls13_tickets),
        (0, 0)
    );

    let name = "camera.bwc.invalid".try_into().unwrap();
    let mut client = ClientConnection::new(client.into(), Version::V1, name, vec![]).unwrap();
    let mut server = ServerConnection::new(server.into(), Version::V1, vec![]).unwrap();
    for _ in 0..10 {
        let out = carry(&mut |b| client.write_hs(b), &mut |b| {
            server.read_hs(b).unwrap()
        });
        let back = carry(&mut |b| server.write_hs(b), &mut |b| {
            client.read_hs(b).unwrap()
        });
        if !out && !back {
            break;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    for (version, group, suite) in [
        (
            client.protocol_version(),
            client.negotiated_key_exchange_group(),
            client.negotiated_cipher_suite(),
        ),
        (
            server.protocol_version(),
            server.negotiated_key_exchange_group(),
            server.negotiated_cipher_suite(),
        ),
    ] {
        assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
        assert_eq!(
            suite.unwrap().suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384
        );
    }
}
