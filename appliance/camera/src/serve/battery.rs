//! What the kernel says of the camera's battery, in a folder like `/sys/class/power_supply/BAT0`: `capacity` is percent,
//! `status` one word. It is read for each hello, since a camera that is docked says hello there and begins to charge. What
//! cannot be read, or is none of the kernel's words, is not said: the repeater reckons by it when the camera leaves.

use std::path::Path;

/// How the battery is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Battery {
    /// In percent, where that is known.
    pub(super) percent: Option<u8>,
    /// Whether it charges or is full at the charger, where that is known.
    pub(super) charging: Option<bool>,
}

/// Reads it; without a folder nothing is known.
pub(super) fn read(folder: Option<&Path>) -> Battery {
    let said = |what: &str| {
        let folder = folder?;
        std::fs::read_to_string(folder.join(what)).ok()
    };
    Battery {
        percent: said("capacity").as_deref().and_then(percent),
        charging: said("status").as_deref().and_then(charging),
    }
}

fn percent(said: &str) -> Option<u8> {
    said.trim().parse().ok().filter(|percent| *percent <= 100)
}

fn charging(said: &str) -> Option<bool> {
    match said.trim() {
        "Charging" | "Full" => Some(true),
        "Discharging" | "Not charging" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_battery_says_what_the_kernel_says_and_nothing_else() {
        let at = tempfile::tempdir().unwrap();
        let says = |capacity: &str, status: &str| {
            std::fs::write(at.path().join("capacity"), capacity).unwrap();
            std::fs::write(at.path().join("status"), status).unwrap();
            let battery = read(Some(at.path()));
            (battery.percent, battery.charging)
        };
        assert_eq!(says("57\n", "Charging\n"), (Some(57), Some(true)));
        assert_eq!(says("100\n", "Full\n"), (Some(100), Some(true)));
        assert_eq!(says("0\n", "Discharging\n"), (Some(0), Some(false)));
        assert_eq!(says("3\n", "Not charging\n"), (Some(3), Some(false)));
        assert_eq!(says("101\n", "Unknown\n"), (None, None));
        assert_eq!(says("-1\n", "charging"), (None, None));
        assert_eq!(read(Some(&at.path().join("none"))), Battery::default());
        assert_eq!(read(None), Battery::default());
    }
}
