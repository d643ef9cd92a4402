//! All sources of sightings, started together: what each of them needs of the others is made here.
//!
//! *interfaces* runs wherever anything is looked for, since the others ask it which links may be used; hostapd tells
//! it where a station came, so that the link is asked who it is.

use std::path::PathBuf;
use std::sync::Arc;

use link::seams::Seams;
use link::tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::Sighting;
use super::hostapd::Hostapd;
use super::interfaces::Interfaces;
use super::interfaces::table::Links;
use super::mdns::{IsCamera, Mdns};
use super::settings::Settings;
use crate::alarms::Alarms;
use crate::limits;
use crate::metrics::Metrics;

/// What the sources work with.
pub struct Sources {
    /// Where cameras are looked for.
    pub settings: Settings,
    /// A folder in RAM that only we write, for our ends of hostapd's sockets.
    pub folder: PathBuf,
    /// To the roster.
    pub sightings: mpsc::Sender<Sighting>,
    /// Whether a camera has proved itself at an address.
    pub is_camera: IsCamera,
    /// Time and randomness.
    pub seams: Seams,
    /// Figures.
    pub metrics: Metrics,
    /// Alarms.
    pub alarms: Alarms,
}

impl Sources {
    /// Starts what the configuration asks for.
    pub fn start(self, tasks: &Tasks) {
        if !self.settings.looks_around() {
            return;
        }
        if let Err(e) = std::fs::create_dir_all(&self.folder) {
            warn!(folder = %self.folder.display(), "no folder for hostapd's answers: {e}");
        }
        let (links, known) = watch::channel(Arc::new(Links::new()));
        let (came, coming) = mpsc::channel(limits::CAME);
        for socket in &self.settings.hostapds {
            let hostapd = Hostapd {
                socket: socket.clone(),
                folder: self.folder.clone(),
                links: known.clone(),
                came: came.clone(),
                sightings: self.sightings.clone(),
                clock: self.seams.clock.clone(),
                metrics: self.metrics.clone(),
                alarms: self.alarms.clone(),
            };
            tasks.spawn("hostapd", hostapd.follow(tasks.clone()));
        }
        if self.settings.mdns {
            let mdns = Mdns {
                links: known,
                sightings: self.sightings.clone(),
                is_camera: self.is_camera,
                clock: self.seams.clock.clone(),
                metrics: self.metrics.clone(),
            };
            tasks.spawn("mdns", mdns.browse(tasks.clone()));
        }
        let interfaces = Interfaces {
            settings: self.settings,
            sightings: self.sightings,
            links,
            came: coming,
            seams: self.seams,
            metrics: self.metrics,
        };
        tasks.spawn("interfaces", interfaces.follow(tasks.clone()));
    }
}
