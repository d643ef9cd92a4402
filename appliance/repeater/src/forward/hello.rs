//! The greeting of an archive session: hello both ways, the site's name against its certificate, its store's epoch,
//! and the newest key list.

use std::time::Duration;

use link::frame::{Control, ControlRecv, ControlSend};
use link::quic::Peer;
use minicbor::bytes::ByteVec;
use protocol::codec;
use protocol::ids::SiteId;
use protocol::keylist::KeyListError;
use protocol::message::{ArchiveHello, Message, RepeaterHello, VERSIONS, common_version};
use spool::Contact;
use tracing::{info, warn};

use super::Hop;
use crate::alarms;
use crate::ended::Ended;
use crate::pull::greeting::SOFTWARE;

/// How long a hello may take.
const HELLO: Duration = Duration::from_secs(5);

/// Says hello, hears the site's, and takes what it brings.
///
/// # Errors
/// How the session ends if that fails.
pub async fn greet(
    hop: &Hop,
    site: &SiteId,
    peer: &Peer,
) -> Result<(ControlSend, ControlRecv), Ended> {
    if peer.identity().name() != site.as_str() {
        return Err(Ended::Identity(format!(
            "its certificate is {}, not site {site}'s",
            peer.identity()
        )));
    }
    let (mut send, mut recv) = Control::open(&peer.connection).await?.split();
    let keys = hop.storage.keys().borrow().bytes().to_vec();
    let hello = Message::RepeaterHello(RepeaterHello {
        versions: VERSIONS.to_vec(),
        software: SOFTWARE.into(),
        key_list: Some(ByteVec::from(keys)),
        now: hop.seams.clock.now(),
        docked: false,
        now_error_ms: hop.time.look(&hop.seams.clock).error_ms(),
    });
    send.send(&codec::encode_body(&hello).map_err(|e| Ended::Broken(e.to_string()))?)
        .await?;
    let frame = tokio::time::timeout(HELLO, recv.recv()).await;
    let frame = frame.map_err(|_| Ended::Slow("no hello within 5 s".into()))??;
    let frame = frame.ok_or(Ended::Left("the site ended the session before its hello"))?;
    match codec::decode(&frame) {
        Ok(Message::ArchiveHello(hello)) => take(hop, site, peer, hello).await?,
        Ok(Message::Error(e)) => return Err(Ended::Broken(format!("the site says: {}", e.text))),
        Ok(other) => {
            return Err(Ended::Fault(format!(
                "message {} instead of a hello",
                other.number()
            )));
        }
        Err(e) => return Err(e.into()),
    }
    Ok((send, recv))
}

async fn take(hop: &Hop, site: &SiteId, peer: &Peer, hello: ArchiveHello) -> Result<(), Ended> {
    if common_version(&hello.versions).is_none() {
        return Err(Ended::Version(format!(
            "speaks versions {:?}, none of {VERSIONS:?}",
            hello.versions
        )));
    }
    if hello.site != *site {
        return Err(Ended::Identity(format!("says it is site {}", hello.site)));
    }
    if let Some(list) = hello.key_list {
        take_key_list(hop, site, list).await?;
    }
    let software = hop.sites.up(
        site,
        peer.address(),
        hello.epoch,
        &hello.software,
        &hop.metrics,
    );
    info!(%site, address = %peer.address(), epoch = %hello.epoch, software = %hello.software, "archive answers");
    let (name, epoch) = (site.clone(), hello.epoch);
    let new_software = software != hello.software;
    hop.storage
        .ask(move |spool, now| {
            spool.offer_all_again(&name)?;
            if new_software {
                spool.retry_refused(Some(&name))?;
            }
            spool.contact(Contact::SiteCame { site: name, epoch }, now)
        })
        .await?;
    hop.notices.sites();
    Ok(())
}

async fn take_key_list(hop: &Hop, site: &SiteId, list: ByteVec) -> Result<(), Ended> {
    let known = hop.storage.keys().borrow().clone();
    let trust = hop.keyring.current().trust.clone();
    match known.newer(Vec::from(list).into(), trust.root_keys()) {
        Ok(None) | Err(KeyListError::Older { .. }) => {
            hop.alarms.clear(alarms::KEY_LIST_REFUSED, site.as_str())
        }
        Ok(Some(newer)) => {
            info!(%site, number = newer.number(), "a newer key list");
            hop.storage
                .ask(move |spool, now| {
                    spool.set_key_list(&newer, now)?;
                    spool.retry_refused(None)
                })
                .await?;
            hop.alarms.clear(alarms::KEY_LIST_REFUSED, site.as_str());
        }
        Err(e) => {
            warn!(%site, "key list refused: {e}");
            let mend = "compare the site's key list with the agency's; nothing of it was believed";
            hop.alarms.raise(
                alarms::KEY_LIST_REFUSED,
                site.as_str(),
                e.to_string(),
                mend,
                hop.seams.clock.now(),
            );
        }
    }
    Ok(())
}
