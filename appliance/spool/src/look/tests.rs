//! Rows that do not derive from anything are found: the only way to them is the ledger itself.
#![allow(clippy::unwrap_used, reason = "tests")]

use protocol::keylist;
use protocol::manifest::{Class, HeaderEntry, Policy};
use protocol::suite::SigningKey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

use super::*;
use crate::rows::{Key, RecordingRow};

const NOW: Time = Time(1);

struct World {
    dir: tempfile::TempDir,
    trust: Trust,
    keys: KeyList,
}

impl World {
    fn new() -> World {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = KeyPair::generate().unwrap();
        let root = params.self_signed(&pair).unwrap().der().clone();
        let body = keylist::Body {
            version: keylist::VERSION,
            number: 1,
            receipt_keys: vec![keylist::ReceiptKey {
                site: "daejeon".parse().unwrap(),
                public_key: SigningKey::from_pkcs8(&KeyPair::generate().unwrap().serialize_der())
                    .unwrap()
                    .public()
                    .sec1()
                    .to_vec(),
                state: keylist::State::Active,
            }],
            recipients: Vec::new(),
            void_epochs: Vec::new(),
            suspended: Vec::new(),
        };
        let key = SigningKey::from_pkcs8(&pair.serialize_der()).unwrap();
        World {
            dir: tempfile::tempdir().unwrap(),
            trust: Trust::from_der(&[root], &[]).unwrap(),
            keys: KeyList::sign(body, &key).unwrap(),
        }
    }

    fn options(&self) -> Options {
        let (dir, run) = (self.dir.path().join("spool"), self.dir.path().join("run"));
        Options::new(dir, 1 << 30, run, [1; 16])
    }

    /// What is wrong after the rows were tampered with.
    fn problems(&self, tamper: impl FnOnce(&mut Spool)) -> Vec<String> {
        let (trust, keys) = (self.trust.clone(), self.keys.clone());
        let (mut spool, _) = Spool::open(self.options(), trust.clone(), keys.clone(), NOW).unwrap();
        tamper(&mut spool);
        spool.commit(NOW).unwrap();
        drop(spool);
        let scratch = tempfile::tempdir().unwrap();
        let look = Look::open(&self.options(), trust, keys, scratch.path(), |_| {}, NOW);
        let (mut look, mut next) = (look.unwrap(), Some(VerifyFrom::default()));
        let mut found = Vec::new();
        while let Some(from) = next {
            let step = look.step(from, 1).unwrap();
            found.extend(step.problems.into_iter().map(|p| p.what));
            next = step.next;
        }
        found
    }
}

fn announced(spool: &mut Spool, queued: bool) {
    let camera = protocol::ids::CameraId {
        serial: "C1".parse().unwrap(),
        incarnation: Incarnation([2; 16]),
    };
    let books = &mut spool.books;
    let camera = books.names.intern_camera(&camera, &mut books.ledger);
    let digest = Digest([3; 32]);
    let rec = RecordingRow {
        header: HeaderEntry { digest, length: 9 },
        policy: Policy {
            k: 1,
            sites: vec!["daejeon".parse().unwrap()],
        },
        class: Class::Routine,
        captured: NOW,
        top: 0,
        next_missing: 0,
        end: None,
        stages: [1, 0, 0, 0, 0],
        bytes: 9,
        fate: 0,
    };
    books
        .ledger
        .put(rows::recording(tag::RECORDING, camera, 7), &rec);
    let row = SegmentRow::announced(camera, 7, None, 9, Digest([4; 32]));
    for key in rows::segment_queues(&digest, &row, &rec)
        .iter()
        .filter(|_| queued)
    {
        books.ledger.mark(Key::clone(key));
    }
    books.ledger.put(rows::of(tag::SEGMENT, &digest), &row);
    if !queued {
        books.changes.push((digest, row.stage()));
    }
}

#[test]
fn rows_that_derive_from_nothing_are_found() {
    assert_eq!(World::new().problems(|_| {}), Vec::<String>::new());
    let stray = World::new().problems(|s| {
        s.books
            .ledger
            .mark(rows::of(tag::RECLAIM, &Digest([1; 32])))
    });
    assert_eq!(stray, ["1 keys of queues, of which 0 derive from rows"]);
    let unsaid = World::new().problems(|s| announced(s, true));
    let digest = Digest([3; 32]);
    assert_eq!(
        unsaid,
        [format!(
            "the row of {digest} says announced, the logbook nothing"
        )]
    );
    let unqueued = World::new().problems(|s| announced(s, false));
    assert_eq!(unqueued[0], format!("{digest} stands in a queue too few"));
}
