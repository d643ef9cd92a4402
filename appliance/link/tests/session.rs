//! Sessions over loopback: both hops, control frames beside raw bytes, a restart.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Server, Trial, dialer, dialer_with, loopback};
use futures_util::future::join_all;
use link::clock::Clock;
use link::credentials::Credentials;
use link::endpoint_keys::EndpointKeys;
use link::frame::{Control, FrameError, read_frame, write_frame};
use link::quic::{Hop, Options};
use link::random::Random;
use link::refusals::Refusals;
use link::tasks::current_thread;
use protocol::identity::{Identity, IdentityError, Role};
use std::net::SocketAddr;
use tokio::net::UdpSocket;

#[test]
fn both_hops_give_verified_peers_and_one_channel_binding() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        for (hop, keyring) in [(Hop::Camera, trial.camera()), (Hop::Archive, trial.site())] {
            let own = keyring.current().own.identity.clone();
            let mut server = Server::start(hop, keyring, &clock).await;
            let (dialer, _) = dialer(hop, trial.repeater(), &clock).await;
            let there = dialer.connect(server.address).await.unwrap();
            let here = server.next().await;
            assert_eq!(there.identity(), &own);
            assert_eq!(here.identity(), &Identity::repeater("trial", 1).unwrap());
            assert_eq!(there.exporter(), here.exporter());
            let again = dialer.connect(server.address).await.unwrap();
            assert_ne!(again.exporter(), there.exporter());
            dialer.close().await;
            server.task.abort();
        }
    })
    .unwrap();
}

#[test]
fn control_frames_and_raw_bytes_share_a_connection() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let mut server = Server::start(Hop::Camera, trial.camera(), &clock).await;
        let (dialer, _) = dialer(Hop::Camera, trial.repeater(), &clock).await;
        let there = dialer.connect(server.address).await.unwrap();
        let here = server.next().await;
        let mut control = Control::open(&there.connection).await.unwrap();
        control.send(b"hello").await.unwrap();
        let mut answer = Control::accept(&here.connection).await.unwrap();
        assert_eq!(answer.recv().await.unwrap().unwrap(), &b"hello"[..]);
        answer.send(&[7; 65_536]).await.unwrap();
        assert_eq!(control.recv().await.unwrap().unwrap(), vec![7; 65_536]);
        assert!(matches!(
            answer.send(&[7; 65_537]).await,
            Err(FrameError::TooLong { .. })
        ));

        let mut data = here.connection.open_uni().await.unwrap();
        write_frame(&mut data, b"head").await.unwrap();
        data.write_all(b"raw bytes").await.unwrap();
        data.finish().unwrap();
        let mut data = there.connection.accept_uni().await.unwrap();
        assert_eq!(read_frame(&mut data).await.unwrap(), &b"head"[..]);
        assert_eq!(data.read_to_end(100).await.unwrap(), b"raw bytes");

        let mut cut = here.connection.open_uni().await.unwrap();
        cut.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
        cut.finish().unwrap();
        let mut cut = there.connection.accept_uni().await.unwrap();
        assert!(matches!(
            read_frame(&mut cut).await,
            Err(FrameError::Truncated)
        ));
        let mut long = here.connection.open_uni().await.unwrap();
        long.write_all(&[0, 1, 0, 1]).await.unwrap();
        let mut long = there.connection.accept_uni().await.unwrap();
        assert!(matches!(
            read_frame(&mut long).await,
            Err(FrameError::TooLong { length: 65_537 })
        ));

        there.close(0, "done");
        let end = answer.recv().await;
        assert!(matches!(end, Err(FrameError::Connection(_))), "{end:?}");
    })
    .unwrap();
}

#[test]
fn a_restart_with_the_same_endpoint_keys_is_noticed_at_once() {
    let trial = Trial::new();
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let keys = || {
        EndpointKeys::load_or_make(&dir.path().join("endpoint.keys"), &Random::system()).unwrap()
    };
    let (here, there) = (trial.camera(), clock.clone());
    let first_keys = keys();
    let (address, listening) = tokio::sync::oneshot::channel();
    let (gone, killed) = tokio::sync::oneshot::channel();
    // The first listener's runtime is dropped without a farewell, as by SIGKILL.
    let thread = std::thread::spawn(move || {
        current_thread(async {
            let mut server =
                Server::start_at(loopback(0), Hop::Camera, here, &there, &first_keys).await;
            address.send(server.address).unwrap();
            server.next().await;
        })
        .unwrap();
        gone.send(()).unwrap();
    });
    current_thread(async {
        let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &clock).await;
        let address = listening.await.unwrap();
        let peer = repeater.connect(address).await.unwrap();
        killed.await.unwrap();
        assert!(
            peer.connection.close_reason().is_none(),
            "the first listener said no farewell"
        );
        let _server = Server::start_at(address, Hop::Camera, trial.camera(), &clock, &keys()).await;
        let mut stream = peer.connection.open_uni().await.unwrap();
        stream.write_all(b"are you there?").await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(5), peer.connection.closed())
            .await
            .unwrap();
        assert_eq!(link::quic::explain(&end), "the peer restarted");
    })
    .unwrap();
    thread.join().unwrap();
}

#[test]
fn revocation_ends_a_running_session() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let keyring = trial.camera();
        let mut server = Server::start(Hop::Camera, keyring.clone(), &clock).await;
        let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &clock).await;
        let there = repeater.connect(server.address).await.unwrap();
        let here = server.next().await;
        let refusals = Refusals::new();
        let session = async {
            let error = here.until_refused(&keyring, &refusals).await;
            here.close(1, "revoked");
            error
        };
        let agency = async {
            // A renewal that revokes nobody ends nothing.
            let load = || Credentials::load(&trial.camera_files(), Role::Camera).unwrap();
            keyring.replace(load());
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(there.connection.close_reason().is_none());
            trial.agency.revoke(&trial.repeater_files().chain).unwrap();
            keyring.replace(load());
            there.connection.closed().await
        };
        let both = async { tokio::join!(session, agency) };
        let (error, _) = tokio::time::timeout(Duration::from_secs(10), both)
            .await
            .unwrap();
        assert_eq!(error, IdentityError::Revoked);
        assert_eq!(refusals.count("revoked"), 1);
    })
    .unwrap();
}

#[test]
fn revoked_during_the_handshake_is_revoked_at_once() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let keyring = trial.camera();
        let mut server = Server::start(Hop::Camera, keyring.clone(), &clock).await;
        let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &clock).await;
        let _there = repeater.connect(server.address).await.unwrap();
        let here = server.next().await;
        trial.agency.revoke(&trial.repeater_files().chain).unwrap();
        let anew = Credentials::load(&trial.camera_files(), Role::Camera).unwrap();
        keyring.replace(anew);
        let refusals = Refusals::new();
        let refused = here.until_refused(&keyring, &refusals);
        let error = tokio::time::timeout(Duration::from_secs(10), refused)
            .await
            .expect("nothing is replaced any more");
        assert_eq!(error, IdentityError::Revoked);
    })
    .unwrap();
}

#[test]
fn a_crowd_of_diallers_is_let_in_after_proving_its_addresses() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let mut server = Server::start(Hop::Camera, trial.camera(), &clock).await;
        let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &clock).await;
        let crowd = join_all((0..100).map(|_| repeater.connect(server.address))).await;
        assert_eq!(crowd.iter().filter(|peer| peer.is_ok()).count(), 100);
        for _ in 0..100 {
            server.next().await;
        }
    })
    .unwrap();
}

#[test]
fn a_dialler_that_falls_silent_costs_five_seconds_and_nobody_else() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let mut server = Server::start(Hop::Camera, trial.camera(), &clock).await;
        // The first datagram of a real dialler, replayed by somebody who never answers.
        let decoy = UdpSocket::bind(loopback(0)).await.unwrap();
        let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &clock).await;
        let lost = repeater.connect(decoy.local_addr().unwrap());
        let mut first = vec![0; 2_000];
        let silent = async {
            let (length, _) = decoy.recv_from(&mut first).await.unwrap();
            decoy
                .send_to(&first[..length], server.address)
                .await
                .unwrap();
        };
        let (outcome, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_millis(300), lost),
            silent
        );
        assert!(outcome.is_err(), "nobody answered");
        repeater.connect(server.address).await.unwrap();
        server.next().await;
        assert_eq!(server.refusals.count("handshake_timeout"), 0);
        tokio::time::sleep(Duration::from_millis(5_200)).await;
        assert_eq!(server.refusals.count("handshake_timeout"), 1);
    })
    .unwrap();
}

#[test]
fn datagrams_grow_to_what_both_sides_allow() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        for (ours, theirs, reached) in [
            (6_400, 6_400, 6_400),
            (6_400, 1_452, 1_472),
            (1_452, 1_452, 1_452),
        ] {
            let options = |datagram_bytes| Options {
                datagram_bytes,
                ..Options::new(Hop::Camera)
            };
            let keys = EndpointKeys::fresh(&Random::system());
            let mut server =
                Server::start_with(loopback(0), options(ours), trial.camera(), &clock, &keys).await;
            let (repeater, _) = dialer_with(options(theirs), trial.repeater(), &clock).await;
            let there = repeater.connect(server.address).await.unwrap();
            let here = server.next().await;
            let mut reached_now = 0;
            for _ in 0..200 {
                let mut stream = here.connection.open_uni().await.unwrap();
                stream.write_all(&[7; 100_000]).await.unwrap();
                stream.finish().unwrap();
                let mut stream = there.connection.accept_uni().await.unwrap();
                stream.read_to_end(100_000).await.unwrap();
                reached_now = here.connection.stats().path.current_mtu;
                if reached_now + 20 > reached {
                    break;
                }
            }
            assert!(
                (reached - 20..=reached).contains(&reached_now),
                "{reached_now} of {reached}"
            );
        }
    })
    .unwrap();
}

#[test]
fn one_socket_serves_both_families() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let any = SocketAddr::from(([0; 8], 0));
        let keys = EndpointKeys::fresh(&Random::system());
        let mut server = Server::start_at(any, Hop::Camera, trial.camera(), &clock, &keys).await;
        let (repeater, _) = dialer(Hop::Camera, trial.repeater(), &clock).await;
        let peer = repeater
            .connect(loopback(server.address.port()))
            .await
            .unwrap();
        server.next().await;
        peer.close(0, "done");
    })
    .unwrap();
}

#[test]
fn a_peer_that_stands_still_is_given_five_seconds() {
    let trial = Trial::new();
    current_thread(async {
        let clock = Clock::system();
        let mut server = Server::start(Hop::Camera, trial.camera(), &clock).await;
        let narrow = Options {
            receive_window: 100_000,
            ..Options::new(Hop::Camera)
        };
        let (repeater, _) = dialer_with(narrow, trial.repeater(), &clock).await;
        let there = repeater.connect(server.address).await.unwrap();
        let here = server.next().await;
        let mut control = Control::open(&there.connection).await.unwrap();
        control.send(b"hello").await.unwrap();
        let mut deaf_to = Control::accept(&here.connection).await.unwrap();
        // Nobody reads: what fits the buffers is taken, and then one frame waits its five seconds.
        let talk = async {
            loop {
                if let Err(error) = deaf_to.send(&[7; 65_000]).await {
                    return error;
                }
            }
        };
        // A data stream whose first frame never comes whole.
        let mut half = there.connection.open_uni().await.unwrap();
        half.write_all(&[0, 0]).await.unwrap();
        let mut half = here.connection.accept_uni().await.unwrap();
        let both = async { tokio::join!(talk, read_frame(&mut half)) };
        let (talk, half) = tokio::time::timeout(Duration::from_secs(10), both)
            .await
            .unwrap();
        assert!(matches!(talk, FrameError::Timeout), "{talk}");
        assert!(matches!(half, Err(FrameError::Timeout)), "{half:?}");
    })
    .unwrap();
}
