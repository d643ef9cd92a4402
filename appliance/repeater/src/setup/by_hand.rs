//! A station's plan by words of the command line, for who has the agency's papers and no enrolment file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use link::enrolment::{Archive, Dock, Plan, Port, Uplink, Wifi};

/// The same without an enrolment file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "By hand, in place of a file")]
pub(super) struct ByHand {
    /// A folder with the agency's trust.pem, crl.pem and key-list.cose.
    #[arg(long, value_name = "FOLDER", conflicts_with = "file", requires_all = ["station", "archive"])]
    pub(super) papers: Option<PathBuf>,
    /// The station's name.
    #[arg(long, value_name = "NAME", requires = "papers")]
    station: Option<String>,
    /// Which of its repeaters this is.
    #[arg(long, value_name = "N", default_value_t = 1)]
    number: u16,
    /// A site of the archive: SITE=ADDRESS:PORT, in order of preference; a site may stand several times.
    #[arg(long, requires = "papers", value_parser = archive)]
    archive: Vec<Archive>,
    /// Links of the uplink; wan* and wwan* unless given.
    #[arg(long, value_name = "LINK", requires = "papers")]
    uplink: Vec<String>,
    /// The box's own address there, as 192.0.2.5/24; asked of the network unless given.
    #[arg(long, requires = "papers")]
    address: Option<String>,
    /// Where the way goes on from there.
    #[arg(long, requires = "address")]
    gateway: Option<IpAddr>,
    /// Who knows names there.
    #[arg(long, requires = "address")]
    dns: Vec<IpAddr>,
    /// The station's wireless network.
    #[arg(long, requires = "country")]
    ssid: Option<String>,
    /// Whose rules of the air hold, as KR.
    #[arg(long, requires = "ssid")]
    country: Option<String>,
    /// Its channel.
    #[arg(long, default_value_t = 36)]
    channel: u16,
    /// Its width in MHz: 80 asks for a radio of 802.11ac.
    #[arg(long, value_name = "MHZ")]
    width: Option<u16>,
    /// Its radio.
    #[arg(long, value_name = "LINK", default_value = "wlan0")]
    radio: String,
    /// A dock's Ethernet port: LINK=BAY.
    #[arg(long, value_name = "LINK=BAY", requires = "papers", value_parser = port)]
    dock: Vec<(String, String)>,
    /// The same, under 802.1X.
    #[arg(long, value_name = "LINK=BAY", requires = "papers", value_parser = port)]
    guarded_dock: Vec<(String, String)>,
    /// What a port of the board is called from the next start on: LINK=PATH, the path as udev's ID_PATH.
    #[arg(long, value_name = "LINK=PATH", requires = "papers", value_parser = port)]
    port: Vec<(String, String)>,
}

fn archive(text: &str) -> Result<Archive, String> {
    let (site, address) = text.split_once('=').ok_or("write SITE=ADDRESS:PORT")?;
    let address: SocketAddr = address
        .parse()
        .map_err(|_| "write SITE=ADDRESS:PORT, as site-a=192.0.2.10:47801")?;
    Ok(Archive {
        site: site.into(),
        addresses: vec![address],
    })
}

fn port(text: &str) -> Result<(String, String), String> {
    let (link, other) = text.split_once('=').ok_or("write LINK=BAY, or LINK=PATH")?;
    Ok((link.into(), other.into()))
}

impl ByHand {
    /// What they add up to.
    pub(super) fn plan(&self) -> Plan {
        let mut archive: Vec<Archive> = Vec::new();
        for given in &self.archive {
            match archive.iter_mut().find(|a| a.site == given.site) {
                Some(site) => site.addresses.extend(&given.addresses),
                None => archive.push(given.clone()),
            }
        }
        let usual = Uplink::default();
        let wifi = self.ssid.clone().zip(self.country.clone());
        let docks = self.dock.iter().map(|d| (d, false));
        let docks = docks.chain(self.guarded_dock.iter().map(|d| (d, true)));
        let dock = |((link, bay), guarded): (&(String, String), bool)| Dock {
            interface: Some(link.clone()),
            path: None,
            bay: bay.clone(),
            guarded,
        };
        let named = |(name, path): &(String, String)| Port {
            name: name.clone(),
            path: path.clone(),
        };
        Plan {
            station: self.station.clone().unwrap_or_default(),
            number: self.number,
            archive,
            uplink: Uplink {
                interfaces: match self.uplink.is_empty() {
                    true => usual.interfaces,
                    false => self.uplink.clone(),
                },
                address: self.address.clone(),
                gateway: self.gateway,
                dns: self.dns.clone(),
            },
            wifi: wifi.map(|(ssid, country)| Wifi {
                interface: self.radio.clone(),
                ssid,
                country,
                channel: self.channel,
                width_mhz: self.width,
            }),
            dock: docks.map(dock).collect(),
            port: self.port.iter().map(named).collect(),
        }
    }
}
