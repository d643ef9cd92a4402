//! What this crate says of heads of logbooks and of their countersignatures; see [`crate::judge`].

use protocol::cose::to_cbor;
use protocol::ids::Incarnation;
use protocol::logbook::{self, Countersignature, LogbookError, LogbookHead, SignedHead, Step};
use serde_json::Value;

use crate::judge::{Verdict, bytes, digest, envelope, for_evidence, listed, same_again};
use crate::keys::{Keys, hex, to_hex};
use crate::show;

fn reason(e: LogbookError) -> String {
    match e {
        LogbookError::Envelope(e) => return envelope(&e),
        LogbookError::WrongRepeater { .. } => "wrong-repeater",
        LogbookError::UnknownKey(_) => "unknown-key",
        LogbookError::RevokedKey(_) => "revoked-key",
        LogbookError::WrongSite { .. } => "wrong-site",
        LogbookError::Version(_) => "version",
        LogbookError::Empty => "invalid",
    }
    .into()
}

fn known(value: &Value) -> LogbookHead {
    LogbookHead {
        incarnation: Incarnation::from_slice(&hex(&value[0])).unwrap(),
        entries: value[1].as_u64().unwrap(),
        hash: digest(&value[2]),
    }
}

/// A site's question: is it signed, and does it go on from those that were countersigned before?
pub(crate) fn logbook_head(case: &Value, keys: &Keys) -> Verdict {
    let head = SignedHead::verify(bytes(case), &for_evidence(keys)).map_err(reason)?;
    same_again(case, head.bytes(), &to_cbor(head.body()));
    let before: Vec<_> = (case["given"]["known"].as_array().unwrap().iter())
        .map(known)
        .collect();
    match logbook::step(&before, &head.body().head) {
        Step::Same | Step::Further | Step::Begun => {}
        Step::Behind => return Err("behind".into()),
        Step::Forked => return Err("forked".into()),
    }
    let mut fields = show::logbook_head(head.body());
    fields["digest"] = to_hex(head.digest().as_bytes());
    Ok(fields)
}

/// A repeater's question: is it signed, and of the head that was sent?
pub(crate) fn countersignature(case: &Value, keys: &Keys) -> Verdict {
    let given = &case["given"];
    let list = listed(&given["key_list"], keys);
    let signed = Countersignature::verify(bytes(case), &list).map_err(reason)?;
    same_again(case, signed.bytes(), &to_cbor(signed.body()));
    let sent = SignedHead::verify(hex(&given["head"]).into(), &for_evidence(keys));
    if !signed.covers(sent.map_err(reason)?.body()) {
        return Err("not-covered".into());
    }
    Ok(show::countersignature(signed.body()))
}
