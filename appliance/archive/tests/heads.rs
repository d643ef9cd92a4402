//! Heads of a repeater's logbook: countersigned while they go on, kept over a restart, refused and alarmed where they go
//! back or say something else.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{Repeater, World};
use link::tasks::current_thread;
use protocol::cose::RepeaterSigner;
use protocol::ids::{Digest, Incarnation, Time};
use protocol::logbook::{Countersignature, LogbookHead, SignedHead};
use protocol::message::{Countersigned, HeadVerdict};

const FSYNC: &str = "durability = \"fsync\"";

struct Heads {
    world: World,
    signer: std::sync::Arc<RepeaterSigner>,
}

impl Heads {
    fn new() -> Heads {
        let world = World::new();
        let signer = Repeater::credentials(&world).signer.unwrap();
        Heads { world, signer }
    }

    fn signed(&self, incarnation: u8, entries: u64, hash: u8) -> SignedHead {
        let head = LogbookHead {
            incarnation: Incarnation([incarnation; 16]),
            entries,
            hash: Digest([hash; 32]),
        };
        SignedHead::sign(head, &self.signer, Time(1000 + entries)).unwrap()
    }

    /// The verdict, and of which head there is a countersignature: incarnation and entries.
    fn said(&self, answer: Countersigned) -> (HeadVerdict, Option<(u8, u64)>) {
        let signature = answer.signature.map(|bytes| {
            let bytes = Bytes::from(Vec::from(bytes));
            let signature = Countersignature::verify(bytes, &self.world.key_list()).unwrap();
            let body = signature.body();
            assert_eq!(body.site.as_str(), "site-a");
            assert_eq!(body.repeater, self.signer.repeater);
            assert_eq!(body.told, Time(1000 + body.head.entries));
            (body.head.incarnation.0[0], body.head.entries)
        });
        (answer.verdict, signature)
    }

    fn raised(&self, code: &str) -> usize {
        let log = self.world.log();
        let raised = log
            .lines()
            .filter(|l| l.contains("alarm: ") && l.contains(code));
        raised.count()
    }
}

#[test]
fn a_logbook_only_goes_on_and_what_it_was_is_known_over_a_restart() {
    let heads = Heads::new();
    let gateway = heads.world.start(FSYNC);
    let ask = |address, told: Vec<(u8, u64, u8)>| {
        let asked = async {
            let mut repeater = Repeater::dial(&heads.world, address).await;
            let mut said = Vec::new();
            for (incarnation, entries, hash) in told {
                let head = heads.signed(incarnation, entries, hash);
                said.push(heads.said(repeater.head(head.bytes()).await));
            }
            said
        };
        current_thread(asked).unwrap()
    };
    use HeadVerdict::{Behind, Forked, Signed};
    let told = vec![(1, 700, 1), (1, 700, 1), (1, 750, 2)];
    let signed = |i, n| (Signed, Some((i, n)));
    assert_eq!(
        ask(gateway.address, told),
        [signed(1, 700), signed(1, 700), signed(1, 750)]
    );
    for code in ["logbook_new", "logbook_behind", "logbook_forked"] {
        assert_eq!(heads.raised(code), 0, "{code}");
    }
    drop(gateway);
    let gateway = heads.world.start(FSYNC);
    let stands = Some((1, 750));
    let told = vec![(1, 749, 2), (1, 750, 3), (1, 751, 4)];
    let said = [(Behind, stands), (Forked, stands), signed(1, 751)];
    assert_eq!(ask(gateway.address, told), said);
    assert_eq!(
        (
            heads.raised("logbook_behind"),
            heads.raised("logbook_forked")
        ),
        (1, 1)
    );
    // Another incarnation is taken and noted; the one before is over.
    assert_eq!(ask(gateway.address, vec![(2, 3, 1)]), [signed(2, 3)]);
    assert_eq!(heads.raised("logbook_new"), 1);
    let noted = "begins at entry 3, after logbook 01010101010101010101010101010101, entry 751, chain hash 0404";
    assert!(heads.world.log().contains(noted));
    drop(gateway);
    let gateway = heads.world.start(FSYNC);
    let said = ask(gateway.address, vec![(1, 900, 1), (2, 4, 1)]);
    assert_eq!(said, [(Behind, Some((2, 3))), signed(2, 4)]);
}

#[test]
fn what_is_no_head_of_that_repeater_is_refused() {
    let heads = Heads::new();
    let gateway = heads.world.start(FSYNC);
    let good = heads.signed(1, 700, 1);
    let mut altered = good.bytes().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    // A repeater of the same station that brings it as its own.
    let agency = &heads.world.agency();
    let other = agency.join("repeaters/s1-2");
    let seams = link::seams::Seams::system();
    let made = link::agency::issue::Agency::open(agency, &seams.clock, &seams.random);
    made.add_repeater("s1", 2).unwrap();
    let files = link::credentials::CredentialFiles {
        chain: other.join("chain.pem"),
        key: other.join("key.pem"),
        trust: agency.join("trust.pem"),
        crl: None,
    };
    let role = protocol::identity::Role::Repeater;
    let theirs = link::credentials::Credentials::load(&files, role).unwrap();
    let theirs = SignedHead::sign(good.body().head, &theirs.signer.unwrap(), Time(1)).unwrap();
    current_thread(async {
        let mut repeater = Repeater::dial(&heads.world, gateway.address).await;
        for bytes in [&altered[..], b"nothing", theirs.bytes()] {
            let answer = repeater.head(bytes).await;
            assert_eq!(heads.said(answer), (HeadVerdict::Refused, None));
        }
        // It holds up nothing, and changed nothing.
        let answer = repeater.head(good.bytes()).await;
        assert_eq!(heads.said(answer), (HeadVerdict::Signed, Some((1, 700))));
    })
    .unwrap();
}

#[test]
fn over_what_cannot_be_read_nothing_is_countersigned() {
    let heads = Heads::new();
    let gateway = heads.world.start(FSYNC);
    let path = heads.world.dir.path().join("store/logbooks/s1/1");
    current_thread(async {
        let mut repeater = Repeater::dial(&heads.world, gateway.address).await;
        let first = heads.signed(1, 700, 1);
        repeater.head(first.bytes()).await;
        let good = std::fs::read(&path).unwrap();
        let mut altered = good.clone();
        altered[60] ^= 1;
        std::fs::write(&path, altered).unwrap();
        let further = heads.signed(1, 701, 1);
        let answer = repeater.head(further.bytes()).await;
        assert_eq!(heads.said(answer), (HeadVerdict::Unavailable, None));
        assert_eq!(heads.raised("object_damaged"), 1);
        std::fs::write(&path, good).unwrap();
        let answer = repeater.head(further.bytes()).await;
        assert_eq!(heads.said(answer), (HeadVerdict::Signed, Some((1, 701))));
    })
    .unwrap();
}

#[test]
fn of_many_incarnations_the_first_and_the_newest_are_kept() {
    let heads = Heads::new();
    let gateway = heads.world.start(FSYNC);
    current_thread(async {
        let mut repeater = Repeater::dial(&heads.world, gateway.address).await;
        for incarnation in 1..=34 {
            let head = heads.signed(incarnation, 5, 1);
            assert_eq!(
                repeater.head(head.bytes()).await.verdict,
                HeadVerdict::Signed
            );
        }
        // Of 34, two are gone: the second and the third.
        for (incarnation, verdict) in [
            (1, HeadVerdict::Behind),
            (4, HeadVerdict::Behind),
            (2, HeadVerdict::Signed),
        ] {
            let head = heads.signed(incarnation, 6, 1);
            assert_eq!(
                repeater.head(head.bytes()).await.verdict,
                verdict,
                "{incarnation}"
            );
        }
    })
    .unwrap();
}
