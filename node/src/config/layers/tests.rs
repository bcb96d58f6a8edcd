// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which layer wins, and what an error of each layer says.

use std::path::PathBuf;

use super::{File, Overlay, load};
use crate::config::NodeConfig;

fn file(text: &str) -> File {
    File { path: PathBuf::from("/etc/sn/supernode.toml"), text: text.to_owned() }
}

fn file_error(text: &str) -> String {
    load::<NodeConfig>(Some(&file(text)), &[]).expect_err("a bad file").to_string()
}

fn env(pairs: &[(&str, &str)]) -> Vec<Overlay> {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Overlay::from_env::<NodeConfig>(pairs)
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    let text =
        file("[network]\nregion = \"file\"\nname = \"file\"\n[storage]\ncapacity_bytes = 7\n");
    let mut overlays =
        env(&[("SUPERNODE_NETWORK__REGION", "env"), ("SUPERNODE_NETWORK__NAME", "env")]);
    overlays.push(Overlay::flag("network.name", "flag", "--network"));
    let config: NodeConfig = load(Some(&text), &overlays).expect("all good");
    assert_eq!(config.network.name, "flag");
    assert_eq!(config.network.region, "env");
    assert_eq!(config.storage.capacity_bytes, 7);
    assert_eq!(config.storage.reserve_bytes, NodeConfig::default().storage.reserve_bytes);
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_was_meant() {
    let error = file_error("[storage]\nreserve_bytes = \"1GiB\"\n  capcity_bytes = 1\n");
    let expected = "/etc/sn/supernode.toml: line 3, column 3: storage.capcity_bytes: unknown \
                    key; did you mean `capacity_bytes`?";
    assert_eq!(error, expected);
    let error = file_error("[stoarge]\ncapacity_bytes = 1\n");
    assert!(
        error.contains("line 1, column 2: stoarge: unknown key; did you mean `storage`?"),
        "{error}"
    );
    let error = file_error("colour = 1\n");
    assert!(error.contains("known here: audit, chain, data_dir, "), "{error}");
}

#[test]
fn a_bad_unit_is_named_with_its_place_and_the_remedy() {
    let error = file_error("# comment\n[storage]\ncapacity_bytes = \"12XB\"\n");
    assert!(error.contains("line 3, column 18: storage.capacity_bytes: "), "{error}");
    assert!(error.contains("\"12XB\" is no size; write a number and a unit"), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn disks_are_listed_with_sizes_and_paths_as_people_write_them() {
    let text = "[[storage.disks]]\npath = \"a\"\ncapacity_bytes = \"4TiB\"\n\
                [[storage.disks]]\npath = \"/mnt/b/\"\ncapacity_bytes = 7\n";
    let config: NodeConfig = load(Some(&file(text)), &[]).expect("all good");
    let [a, b] = &config.storage.disks[..] else { panic!("two disks: {:?}", config.storage) };
    assert_eq!((a.path.to_str(), a.capacity_bytes), (Some("/etc/sn/a"), 4 << 40));
    assert_eq!((b.path.to_str(), b.capacity_bytes), (Some("/mnt/b"), 7));

    let inline = "[storage]\ndisks = [{ path = \"a\", capacity_bytes = \"4XB\" }]\n";
    let error = file_error(inline);
    assert!(error.contains("line 2, column 41: storage.disks[1].capacity_bytes: "), "{error}");
    let error = file_error("[[storage.disks]]\npath = \"a\"\ncapacity_byte = 1\n");
    assert!(error.contains("capacity_byte"), "{error}");
    let twice = text.replace("/mnt/b/", "a/inner");
    let error = file_error(&twice);
    assert!(error.contains("storage.disks: "), "{error}");
    assert!(error.contains("one within the other"), "{error}");
}

#[test]
fn bad_syntax_types_and_addresses_are_named_with_their_place() {
    assert!(file_error("data_dir = \n").contains("line 1, column 1"), "no value");
    let error = file_error("data_dir = 5\n");
    assert!(error.contains("line 1, column 12: data_dir: invalid type"), "{error}");
    let error = file_error("[http]\nlisten = \"everywhere\"\n");
    assert!(error.contains("line 2, column 10: http.listen: "), "{error}");
    let error = file_error("[relay]\nwriters = [\"me\"]\n");
    assert!(error.contains("relay.writers: \"me\" is not a valid peer id"), "{error}");
}

#[test]
fn a_rule_that_a_value_breaks_is_told_where_the_value_stands() {
    let error = file_error("[network]\nregion = \"\"\n");
    assert!(error.contains("line 2, column 10: network.region: "), "{error}");
    let overlays = env(&[("SUPERNODE_LOG__FILTER", "a=b=c")]);
    let error = load::<NodeConfig>(None, &overlays).expect_err("no filter").to_string();
    assert!(
        error.starts_with("environment variable SUPERNODE_LOG__FILTER: log.filter: "),
        "{error}"
    );
}

#[test]
fn an_environment_variable_is_named_in_its_error() {
    let overlays = env(&[("SUPERNODE_STORAGE__CAPACITY_BYTES", "lots")]);
    let error = load::<NodeConfig>(None, &overlays).expect_err("no size").to_string();
    assert!(
        error.contains("SUPERNODE_STORAGE__CAPACITY_BYTES: storage.capacity_bytes: \"lots\""),
        "{error}"
    );
    let overlays = env(&[("SUPERNODE_STORAGE__CAPACTY_BYTES", "1GiB")]);
    let error = load::<NodeConfig>(None, &overlays).expect_err("unknown").to_string();
    assert!(error.contains("did you mean `capacity_bytes`?"), "{error}");
}

#[test]
fn variables_that_others_set_are_left_alone() {
    let foreign =
        [("SUPERNODE_PORT", "tcp://10.0.0.1:9002"), ("SUPERNODE_SERVICE_HOST", "10.0.0.1")];
    assert_eq!(env(&foreign), []);
    assert_eq!(env(&[("SUPERNODE_DATA_DIR", "d")]).len(), 1);
}

#[test]
fn lists_are_separated_by_commas_outside_the_file() {
    let overlays = env(&[("SUPERNODE_DHT__LISTEN", "/ip4/1.2.3.4/tcp/1, /ip4/1.2.3.5/tcp/2")]);
    let config: NodeConfig = load(None, &overlays).expect("two addresses");
    assert_eq!(config.dht.listen, ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/2"]);
}

#[test]
fn paths_in_a_file_start_from_it() {
    let config: NodeConfig = load(Some(&file("data_dir = \"data\"\n")), &[]).expect("good");
    assert_eq!(config.identity_path(), PathBuf::from("/etc/sn/data/identity.key"));
    let flag = [Overlay::flag("data_dir", "data", "--data-dir")];
    let config: NodeConfig = load(Some(&file("")), &flag).expect("good");
    assert_eq!(config.data_dir, PathBuf::from("data"));
}

#[test]
fn a_section_is_no_setting() {
    let overlays = [Overlay::flag("storage", "1", "--set storage")];
    let error = load::<NodeConfig>(None, &overlays).expect_err("a section").to_string();
    assert!(error.contains("is a section; set one of its keys: "), "{error}");
}

#[test]
fn units_are_text_and_errors_behind_them_keep_their_line() {
    let good = file("[storage]\ncapacity_bytes = \"1.5TiB\"\n[relay]\nhello_timeout_ms = \"5s\"\n");
    let config: NodeConfig = load(Some(&good), &[]).expect("good units");
    assert_eq!(config.storage.capacity_bytes, 3 << 39);
    assert_eq!(config.relay.hello_timeout_ms, 5000);
    let error = file_error("[storage]\ncapacity_bytes = \"1.5TiB\"\nreads_max = \"two\"\n");
    assert!(error.contains("line 3, column 13: storage.reads_max: invalid type"), "{error}");
}

#[test]
fn what_another_key_says_cannot_be_said_twice() {
    let error = file_error("[relay]\nnetwork = \"other\"\n");
    assert!(error.contains("relay.network: is not set here; set `network.name`"), "{error}");
}

#[test]
fn a_rule_of_a_crate_is_told_with_the_key_of_the_file() {
    let error = file_error("[storage]\nreads_max = 0\n");
    assert!(error.contains("line 2, column 13: storage.reads_max: "), "{error}");
    let error = file_error(
        "[relay.class.stranger]\nrequests_burst = 1\n[relay.class.relay]\nrequests_max = 0\n",
    );
    assert!(error.contains("line 4, column 16: relay.class.relay.requests_max: "), "{error}");
    let error = file_error("[network]\nname = \"UPPER\"\n");
    assert!(error.contains("line 2, column 8: network.name: "), "{error}");
    let error = file_error("[network]\nbootstrap = [\"/ip4/8.8.8.8/tcp/1\"]\n");
    assert!(error.contains("line 2, column 13: network.bootstrap: "), "{error}");
}

#[test]
fn what_a_section_leaves_out_keeps_the_nodes_default() {
    let config: NodeConfig =
        load(Some(&file("[dht]\nallow_private_addresses = true\n[relay]\nwriters = []\n")), &[])
            .expect("a usual file");
    let defaults = NodeConfig::default();
    assert_eq!(config.dht.listen, defaults.dht.listen);
    assert_eq!(config.relay, defaults.relay);
    assert!(config.dht.allow_private_addresses);
}
