//! `repeaterd setup`: a box becomes a station's repeater. From an enrolment file ([`link::enrolment`] says why it is
//! believed), or by hand from the agency's papers and a few words, it makes the private key, writes the configurations of
//! daemon, hostapd and uplink, and a signing request; once the agency's certificate is there the box is in service.
//!
//! In order, each step durable before the next:
//! 1. `setup.toml` says who the box is to be;
//! 2. `trust.pem`, `crl.pem`, `key-list.cose` (unless a newer one is there), hostapd's, the uplink's, `repeater.toml`, of
//!    which one that is there already is kept as `repeater.toml.before`;
//! 3. the key, sealed for this machine by the service manager; it is in memory only before that;
//! 4. `request.pem`, beside the enrolment file too, as `STATION-N.request.pem`;
//! 5. `setup.toml` says what is applied;
//! 6. the certificate, from beside the file (`STATION-N.certificate.pem`) or as given: checked against key, root and name,
//!    and then `chain.pem`. The daemon's unit starts only where that is.
//!
//! Killed anywhere it is run again and goes on: what has its bytes already is not written, a key that is there is used, a
//! request that does not fit the key is made anew. An enrolment that is applied is not applied again, so what a person
//! changed afterwards stays. A box keeps its identity: a file for somebody else, of another agency, or older than the one
//! applied is refused, and `--replace` says that it is meant. The spool is not touched; `repeaterd adopt` is for that.
//!
//! There is no default password, since there is no password.

mod by_hand;
mod pins;
mod place;
mod texts;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use link::agency::files::to_hex;
use link::agency::request::OwnKey;
use link::clock::Clock;
use link::credentials::{Credentials, load_chain, load_trust};
use link::enrolment::{Enrolment, FILE_BYTES, Papers, Uplink, fingerprints};
use protocol::identity::{Identity, Role, claimed_identity};
use protocol::ids::Digest;
use protocol::keylist::KeyList;
use protocol::suite::sha256;

use crate::limits;
use by_hand::ByHand;
use place::{Keep, Place, State, read, write};

/// What a person wants.
#[derive(Debug, clap::Args)]
pub(crate) struct Order {
    /// The agency's enrolment file. The request is left beside it, and the certificate is looked for there.
    file: Option<PathBuf>,
    /// The fingerprint of the agency's root, as its paper says it; needed where neither the image nor an earlier setup
    /// knows it.
    #[arg(long, value_name = "FINGERPRINT")]
    agency: Vec<String>,
    /// The certificate that the agency signed, if it is not beside the enrolment file.
    #[arg(long, value_name = "CHAIN")]
    certificate: Option<PathBuf>,
    /// Give up the identity that this box has, with its private key. The spool stays.
    #[arg(long)]
    replace: bool,
    /// Make a new private key, where this machine does not open the one that is there: its disk came from another board, or
    /// its TPM has changed. Identity and spool stay; the agency has to sign the new request.
    #[arg(long)]
    new_key: bool,
    /// Keep the private key in a file of mode 0600: for machines without systemd.
    #[arg(long)]
    plain_key: bool,
    /// The root of the file system to set up.
    #[arg(long, default_value = "/", hide = true)]
    root: PathBuf,
    #[command(flatten)]
    by_hand: ByHand,
}

/// What is to be applied.
struct Wanted {
    enrolment: Enrolment,
    identity: Identity,
    digest: Digest,
}

/// Sets the box up, as far as what is there allows.
///
/// # Errors
/// What is refused, cannot be read or cannot be written.
pub(crate) fn setup(order: &Order) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let place = Place::new(&order.root);
    let _lock = place.lock()?;
    let keep = if order.plain_key {
        Keep::Plain
    } else {
        Keep::Sealed
    };
    if order.new_key {
        new_key(order, &place, keep, &clock)?;
    }
    let wanted = match (&order.file, &order.by_hand.papers) {
        (Some(file), _) => Some(from_file(order, &place, file)?),
        (None, Some(papers)) => Some(from_words(order, &place, papers, &clock)?),
        (None, None) => None,
    };
    let identity = match &wanted {
        Some(wanted) => {
            apply(order, &place, keep, wanted, &clock)?;
            wanted.identity.clone()
        }
        None if order.new_key && order.certificate.is_none() => return Ok(ExitCode::SUCCESS),
        None => {
            ensure!(
                order.certificate.is_some() && !order.replace,
                "nothing to do: give an enrolment file, or --papers, --station and --archive, or --certificate"
            );
            let state = place
                .state()?
                .context("this box was not set up: do that first")?;
            state.identity.parse()?
        }
    };
    certify(order, &place, keep, &identity, &clock)?;
    Ok(ExitCode::SUCCESS)
}

fn from_file(order: &Order, place: &Place, file: &Path) -> anyhow::Result<Wanted> {
    let bytes =
        read(file, FILE_BYTES)?.with_context(|| format!("there is no {}", file.display()))?;
    let known =
        pins::known(&order.agency, &place.etc(), order.replace).map_err(anyhow::Error::msg)?;
    // What it says is all there is to say: its source would say it again.
    let enrolment =
        Enrolment::open(&bytes, &known).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    Ok(Wanted {
        identity: enrolment.identity()?,
        digest: sha256(&bytes),
        enrolment,
    })
}

fn from_words(
    order: &Order,
    place: &Place,
    papers: &Path,
    clock: &Clock,
) -> anyhow::Result<Wanted> {
    let file = |name: &str| {
        let path = papers.join(name);
        read(&path, limits::SETUP_BYTES)?.with_context(|| format!("there is no {}", path.display()))
    };
    let text = |name: &str| String::from_utf8(file(name)?).with_context(|| name.to_owned());
    let papers = Papers {
        trust: text("trust.pem")?,
        crl: text("crl.pem")?,
        key_list: to_hex(&file("key-list.cose")?),
    };
    let known =
        pins::known(&order.agency, &place.etc(), order.replace).map_err(anyhow::Error::msg)?;
    let brought = fingerprints(&papers.trust)?;
    ensure!(
        known.is_empty() || brought.iter().any(|b| known.contains(b)),
        "trust.pem is of another agency than this box was told of"
    );
    let plan = order.by_hand.plan();
    let digest = sha256(format!("{}\n{papers:?}", toml::to_string(&plan)?).as_bytes());
    let enrolment = Enrolment::new(plan, papers, clock.now())?;
    Ok(Wanted {
        identity: enrolment.identity()?,
        digest,
        enrolment,
    })
}

/// What is to be done with an enrolment, by what the box is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Everything is written.
    Apply,
    /// It is applied already.
    Again,
}

/// Who the box is: by its certificate, else by what a setup noted.
fn judge(certified: Option<&str>, state: Option<&State>, wanted: &State) -> Result<Step, String> {
    let is = certified.or(state.map(|s| s.identity.as_str()));
    if let Some(is) = is.filter(|is| *is != wanted.identity) {
        return Err(format!(
            "this box is {is}, and was asked to become {}; --replace gives its identity up",
            wanted.identity
        ));
    }
    match state {
        Some(s) if s.applied.is_some() && s.applied == wanted.applied => Ok(Step::Again),
        Some(s) if s.applied.is_some() && s.made_ms > wanted.made_ms => Err(
            "it is older than the enrolment that is applied; have the agency make a new one".into(),
        ),
        _ => Ok(Step::Apply),
    }
}

fn apply(
    order: &Order,
    place: &Place,
    keep: Keep,
    wanted: &Wanted,
    clock: &Clock,
) -> anyhow::Result<()> {
    if order.replace {
        place.forget()?;
        println!(
            "the identity that this box had is given up; `repeaterd adopt` says what becomes of its footage"
        );
    }
    let done = State {
        identity: wanted.identity.to_string(),
        made_ms: wanted.enrolment.made_ms,
        applied: Some(wanted.digest.to_string()),
    };
    let chain = place.own("chain.pem");
    let certified = match chain.exists() {
        true => load_chain(&chain)?.first().map(claimed_identity),
        false => None,
    };
    let state = place.state()?;
    let step = judge(certified.as_deref(), state.as_ref(), &done).map_err(anyhow::Error::msg)?;
    if step == Step::Apply {
        place.set_state(&State {
            applied: None,
            ..done.clone()
        })?;
        write_all(place, keep, &wanted.enrolment)?;
    }
    let key = place.own_key(keep, clock)?;
    ask(order, place, &key, &wanted.identity)?;
    if step == Step::Apply {
        place.set_state(&done)?;
    }
    println!("set up as {}", wanted.identity);
    Ok(())
}

/// In place of a key that only another machine opens, a new one. The certificate goes first: from there on the daemon does not
/// start until the agency has signed the new request. Killed anywhere it is run again, and goes on.
fn new_key(order: &Order, place: &Place, keep: Keep, clock: &Clock) -> anyhow::Result<()> {
    let Some(state) = place.state()? else {
        println!("this box was not set up: it has no key");
        return Ok(());
    };
    let identity = state.identity.parse()?;
    // A TPM that answers badly once is no other board's.
    let opened = place
        .own_key(keep, clock)
        .or_else(|_| place.own_key(keep, clock));
    let key = match opened {
        Ok(key) => key,
        Err(e) => {
            println!("{e:#}");
            place.set_key_aside()?;
            place.own_key(keep, clock)?
        }
    };
    if !place.own("chain.pem").exists() {
        ask(order, place, &key, &identity)?;
        println!(
            "{identity} has a new key; the agency signs its request, and revokes the certificate of before"
        );
    }
    Ok(())
}

/// The configurations.
fn write_all(place: &Place, keep: Keep, enrolment: &Enrolment) -> anyhow::Result<()> {
    let (papers, plan) = (&enrolment.papers, &enrolment.plan);
    write(&place.own("trust.pem"), papers.trust.as_bytes(), 0o644)?;
    write(&place.own("crl.pem"), papers.crl.as_bytes(), 0o644)?;
    let (list, path) = (papers.key_list()?, place.own("key-list.cose"));
    let known = read(&path, limits::SETUP_BYTES)?;
    let trust = papers.trust()?;
    let known = known.and_then(|b| KeyList::verify(b.into(), trust.root_keys()).ok());
    if known.is_none_or(|k| k.number() < list.number()) {
        write(&path, list.bytes(), 0o644)?;
    }
    for (name, text) in texts::hostapd(plan) {
        write(&place.hostapd(&name), text.as_bytes(), 0o644)?;
    }
    if let Some(text) = texts::uplink(plan) {
        write(&place.network(), text.as_bytes(), 0o644)?;
    } else if place.network().exists() {
        // An earlier enrolment gave it an address.
        std::fs::remove_file(place.network())
            .with_context(|| format!("cannot remove {}", place.network().display()))?;
    }
    let ports = texts::ports(plan);
    let files: Vec<PathBuf> = ports.iter().map(|(name, _)| place.port(name)).collect();
    let mut renamed = place.keep_ports(&files)?;
    for ((_, text), path) in ports.iter().zip(&files) {
        renamed |= write(path, text.as_bytes(), 0o644)?;
    }
    if renamed {
        println!(
            "the ports have the plan's names from the next start of the machine on: restart it"
        );
    }
    let path = place.own("repeater.toml");
    let text = texts::config(plan, &Place::key_in_config(keep));
    if let Some(before) = read(&path, limits::SETUP_BYTES)?.filter(|b| b != text.as_bytes()) {
        write(&place.own("repeater.toml.before"), &before, 0o644)?;
    }
    write(&path, text.as_bytes(), 0o644)?;
    if plan.uplink != Uplink::default() && plan.uplink.interfaces != Uplink::default().interfaces {
        let names = plan.uplink.interfaces.join(", ");
        println!(
            "the firewall's set `uplink` has to name {names}, too (/etc/nftables.d/bwc-repeater.nft)"
        );
    }
    Ok(())
}

/// Names of what lies beside an enrolment file.
fn beside(file: &Path, identity: &Identity, what: &str) -> PathBuf {
    let name = identity.name().replace(':', "-");
    file.with_file_name(format!("{name}.{what}.pem"))
}

/// The signing request, here and beside the enrolment file.
fn ask(order: &Order, place: &Place, key: &OwnKey, identity: &Identity) -> anyhow::Result<()> {
    let path = place.own("request.pem");
    let there = read(&path, limits::SETUP_BYTES)?.and_then(|b| String::from_utf8(b).ok());
    let request = match there.filter(|r| key.asked(r, identity)) {
        Some(request) => request,
        None => key.request(identity)?,
    };
    write(&path, request.as_bytes(), 0o644)?;
    if let Some(file) = &order.file {
        let path = beside(file, identity, "request");
        write(&path, request.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Takes the certificate, where there is one.
fn certify(
    order: &Order,
    place: &Place,
    keep: Keep,
    identity: &Identity,
    clock: &Clock,
) -> anyhow::Result<()> {
    let there = order
        .file
        .as_deref()
        .map(|f| beside(f, identity, "certificate"));
    let given = order.certificate.clone().or(there.filter(|p| p.exists()));
    let chain = place.own("chain.pem");
    let Some(given) = given else {
        match chain.exists() {
            true => println!("it has its certificate"),
            false => println!(
                "the agency signs {} (agency sign --role repeater); the certificate is taken with --certificate, or from beside the enrolment file",
                place.own("request.pem").display()
            ),
        }
        return Ok(());
    };
    let bytes = read(&given, limits::SETUP_BYTES)?
        .with_context(|| format!("there is no {}", given.display()))?;
    let new = place.own("chain.new.pem");
    write(&new, &bytes, 0o644)?;
    let taken = take(place, keep, &given, &new, identity, clock);
    let removed = std::fs::remove_file(&new);
    if taken? {
        write(&chain, &bytes, 0o644)?;
    }
    removed.with_context(|| format!("cannot remove {}", new.display()))?;
    println!("its certificate is taken: systemctl enable --now repeaterd");
    Ok(())
}

/// Whether a certificate is this box's, and not older than the one it has.
fn take(
    place: &Place,
    keep: Keep,
    given: &Path,
    new: &Path,
    identity: &Identity,
    clock: &Clock,
) -> anyhow::Result<bool> {
    let trust = load_trust(&place.own("trust.pem"), Some(&place.own("crl.pem")))?;
    let key = place.own_key(keep, clock)?;
    let judge = |path: &Path| {
        let chain = load_chain(path)?;
        Credentials::new(chain, key.der(), trust.clone(), Role::Repeater)
            .with_context(|| format!("{}: not this box's", given.display()))
    };
    let credentials = judge(new)?;
    if credentials.own.identity != *identity {
        bail!(
            "{}: it is of {}, and this box is {identity}",
            given.display(),
            credentials.own.identity
        );
    }
    let now = place.own("chain.pem");
    Ok(!now.exists()
        || judge(&now).map_or(true, |had| had.own.not_after <= credentials.own.not_after))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_box_keeps_its_identity_and_takes_what_is_newer() {
        let state = |identity: &str, made_ms, applied: Option<&str>| State {
            identity: identity.into(),
            made_ms,
            applied: applied.map(str::to_owned),
        };
        let wanted = state("a", 5, Some("x"));
        let judge = |certified, state: Option<State>| judge(certified, state.as_ref(), &wanted);
        assert_eq!(judge(None, None), Ok(Step::Apply));
        assert_eq!(judge(Some("a"), None), Ok(Step::Apply));
        assert_eq!(judge(None, Some(state("a", 5, Some("x")))), Ok(Step::Again));
        assert_eq!(judge(None, Some(state("a", 4, Some("y")))), Ok(Step::Apply));
        // Begun and not done.
        assert_eq!(judge(None, Some(state("a", 9, None))), Ok(Step::Apply));
        assert!(
            judge(None, Some(state("a", 6, Some("y"))))
                .unwrap_err()
                .contains("older")
        );
        assert!(judge(Some("b"), None).unwrap_err().contains("--replace"));
        assert!(judge(None, Some(state("b", 1, None))).is_err());
    }
}
