// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits of the relay server are shown and changed while the node runs.

use serde_json::Value;

use crate::program::{NodeDir, finish};

#[test]
fn limits_are_shown_and_changed_until_the_next_start() {
    let node = NodeDir::new();
    let quiet = ["--set", "log.filter=off"];
    let absent = finish(&mut node.command(&["relay", "limits"]));
    absent.assert_failed(1, &["no node answers"]);
    let running = node.start(&quiet);
    let limits = |arguments: &[&str]| {
        let ended = finish(node.command(&["relay", "limits", "--json"]).args(arguments));
        ended.assert_done();
        serde_json::from_str::<Value>(&ended.stdout).expect("JSON")
    };
    let before = limits(&[]);
    assert_eq!(before["requests_max"], 1024);
    assert_eq!(before["class"]["stranger"]["burst_bytes"], 8 << 20);
    assert!(before["writers"].is_null() && before["listen"].is_null(), "{before}");
    let set = ["--set", "relay.requests_max=7", "--set", "relay.class.relay.bytes_per_sec=9MiB"];
    let after = limits(&set);
    assert_eq!(
        (&after["requests_max"], &after["class"]["relay"]["bytes_per_sec"]),
        (&Value::from(7), &Value::from(9 << 20))
    );
    assert_eq!(limits(&[]), after, "it stays");
    let told = finish(&mut node.command(&["relay", "limits"]));
    assert!(told.stdout.contains("\nrelay.class.relay.bytes_per_sec=9437184\n"), "{told:?}");
    let fixed = finish(&mut node.command(&["relay", "limits", "--set", "relay.incoming_max=7"]));
    fixed.assert_failed(2, &["relay.incoming_max", "while the node runs"]);
    let wrong = finish(&mut node.command(&["relay", "limits", "--set", "relay.requests_max=0"]));
    wrong.assert_failed(2, &["relay.requests_max"]);
    assert_eq!(limits(&[]), after, "nothing was changed");
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
    let running = node.start(&quiet);
    assert_eq!(limits(&[]), before, "until the next start");
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
}
