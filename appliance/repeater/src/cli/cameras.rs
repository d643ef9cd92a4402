//! `repeaterd cameras`: one line for each camera, for people. What it says is in the status; `--json` prints that part.

use serde_json::Value;

/// The table of a status.
pub(super) fn table(status: &Value) -> String {
    let now = status["now_ms"].as_u64().unwrap_or(0);
    let cameras = status["cameras"].as_array().into_iter().flatten();
    let head = [
        "CAMERA",
        "PATH",
        "STATE",
        "PROGRESS",
        "ESTIMATE",
        "LAST CONTACT",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(cameras.map(|c| row(c, now)));
    let devices = status["devices"].as_array().into_iter().flatten();
    rows.extend(devices.filter_map(device));
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths);
        let padded = cells.map(|(text, width)| format!("{text:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(camera: &Value, now: u64) -> [String; 6] {
    let segments = &camera["segments"];
    let all: u64 = (segments.as_object().into_iter().flatten())
        .filter_map(|(_, n)| n.as_u64())
        .sum();
    let lacking = segments["announced"].as_u64().unwrap_or(0);
    let percent = camera["progress_percent"].as_u64().unwrap_or(0);
    let ago = |ms: u64| format!("{} ago", span(now.saturating_sub(ms) / 1000));
    [
        text(&camera["serial"]),
        path(&camera["path"]),
        text(&camera["state"]),
        match all {
            0 => "nothing announced".to_owned(),
            _ => format!("{} of {all} segments ({percent} %)", all - lacking),
        },
        match camera["estimate_seconds"].as_u64() {
            Some(seconds) => format!("about {}", span(seconds)),
            None if lacking == 0 && all > 0 => "done".to_owned(),
            None => "-".to_owned(),
        },
        camera["last_contact_ms"]
            .as_u64()
            .map_or("never".to_owned(), ago),
    ]
}

fn path(path: &Value) -> String {
    if path.is_null() {
        return "-".to_owned();
    }
    if path["docked"].as_bool() == Some(true) {
        return match path["bay"].as_str() {
            Some(bay) => format!("bay {bay}"),
            None => "docked".to_owned(),
        };
    }
    let weak = match path["takes_routine"].as_bool() {
        Some(false) => ", urgent only",
        _ => "",
    };
    match path["signal_dbm"].as_i64() {
        Some(dbm) => format!("{dbm} dBm{weak}"),
        None => format!("nearby{weak}"),
    }
}

/// Whoever was refused stands there too: an installer looks for the camera that does not come.
fn device(device: &Value) -> Option<[String; 6]> {
    let refused = device["refused"].as_str()?;
    let on = device["interface"].as_str().unwrap_or("-");
    let dash = || "-".to_owned();
    let who = format!("? {}", text(&device["address"]));
    let why = format!("refused: {refused}");
    Some([who, on.to_owned(), why, dash(), dash(), dash()])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("?").to_owned()
}

/// Seconds, as people say them.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_camera_has_a_line_and_whoever_was_refused() {
        let status = serde_json::json!({
            "now_ms": 600_000,
            "cameras": [
                {
                    "serial": "C1", "state": "pulling", "progress_percent": 50, "estimate_seconds": 200,
                    "path": {"docked": true, "bay": "A1", "signal_dbm": null, "takes_routine": true},
                    "segments": {"announced": 5, "held": 5}, "last_contact_ms": 590_000,
                },
                {
                    "serial": "C2", "state": "asleep", "progress_percent": 100, "estimate_seconds": null,
                    "path": {"docked": false, "bay": null, "signal_dbm": -71, "takes_routine": false},
                    "segments": {"announced": 0, "held": 7}, "last_contact_ms": 0,
                },
                {
                    "serial": "C3", "state": "away", "progress_percent": 0, "estimate_seconds": null,
                    "path": null, "segments": {}, "last_contact_ms": null,
                },
            ],
            "devices": [
                {"address": "10.0.0.66:47800", "interface": "vlan7", "refused": "revoked"},
                {"address": "10.0.0.67:47800", "interface": null, "refused": null},
            ],
        });
        let want = "\
CAMERA             PATH                  STATE             PROGRESS                ESTIMATE     LAST CONTACT
C1                 bay A1                pulling           5 of 10 segments (50 %)  about 3 min  10 s ago
C2                 -71 dBm, urgent only  asleep            7 of 7 segments (100 %)  done         10 min ago
C3                 -                     away              nothing announced        -            never
? 10.0.0.66:47800  vlan7                 refused: revoked  -                        -            -";
        let squeeze = |t: &str| {
            let words = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
            t.lines().map(words).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&table(&status)), squeeze(want));
        let lines: Vec<String> = table(&status).lines().map(str::to_owned).collect();
        let at = |line: &str, word: &str| line.find(word);
        assert_eq!(at(&lines[0], "STATE"), at(&lines[1], "pulling"));
        assert_eq!(at(&lines[0], "STATE"), at(&lines[2], "asleep"));
    }
}
