//! The sources at work, and what they tell: waited for, and what comes before goes by.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use link::seams::Seams;
use link::tasks::Tasks;
use repeater::alarms::Alarms;
use repeater::discover::settings::Settings;
use repeater::discover::sources::Sources;
use repeater::discover::{LinkState, Mac, Medium, Presence, Sighting, Source};
use repeater::metrics::Metrics;
use tokio::sync::mpsc;

/// Nothing here takes longer on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The sources, running.
pub(crate) struct Running {
    pub(crate) seen: mpsc::Receiver<Sighting>,
    pub(crate) metrics: Metrics,
    tasks: Tasks,
}

impl Running {
    pub(crate) fn start(
        settings: Settings,
        folder: &Path,
        cameras: BTreeSet<SocketAddr>,
    ) -> Running {
        let (sightings, seen) = mpsc::channel(16);
        let (metrics, tasks) = (Metrics::new().unwrap(), Tasks::new());
        let sources = Sources {
            settings,
            folder: folder.to_owned(),
            sightings,
            is_camera: Arc::new(move |address| cameras.contains(address)),
            seams: Seams::system(),
            alarms: Alarms::new(metrics.clone()),
            metrics: metrics.clone(),
        };
        sources.start(&tasks);
        Running {
            seen,
            metrics,
            tasks,
        }
    }

    /// The first sighting that is what is waited for; those before it go by.
    pub(crate) async fn until<T>(&mut self, what: &str, is: impl Fn(&Sighting) -> Option<T>) -> T {
        let mut before = Vec::new();
        let waited = tokio::time::timeout(LONG, async {
            loop {
                let sighting = self.seen.recv().await.expect("the sources run");
                if let Some(found) = is(&sighting) {
                    return found;
                }
                before.push(sighting);
            }
        });
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!("waited for {what}; there came {before:#?}"),
        }
    }

    pub(crate) async fn link(&mut self, name: &str, wanted: LinkState) -> Medium {
        self.until(&format!("{name} {wanted:?}"), |s| match s {
            Sighting::Link {
                link,
                state,
                medium,
            } if link.name.as_str() == name && *state == wanted => Some(*medium),
            _ => None,
        })
        .await
    }

    pub(crate) async fn seen(&mut self, by: Source) -> (SocketAddr, Option<u64>) {
        self.until("a camera", |s| match s {
            Sighting::Seen {
                address,
                source,
                news,
                ..
            } if *source == by => Some((*address, *news)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn gone(&mut self, by: Source) -> SocketAddr {
        self.until("an end", |s| match s {
            Sighting::Gone { address, source } if *source == by => Some(*address),
            _ => None,
        })
        .await
    }

    pub(crate) async fn station(&mut self, wanted: Presence) -> Mac {
        self.until(&format!("a station {wanted:?}"), |s| match s {
            Sighting::Station { mac, presence, .. } if *presence == wanted => Some(*mac),
            _ => None,
        })
        .await
    }

    /// What comes within a while.
    pub(crate) async fn rest(&mut self, wait: Duration) -> Vec<Sighting> {
        let mut all = Vec::new();
        let _ = tokio::time::timeout(wait, async {
            while let Some(sighting) = self.seen.recv().await {
                all.push(sighting);
            }
        })
        .await;
        all
    }

    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.metrics
            .sightings_dropped
            .with_label_values(&[reason])
            .get()
    }

    pub(crate) async fn end(self) {
        assert!(self.tasks.shutdown(LONG).await);
    }
}
