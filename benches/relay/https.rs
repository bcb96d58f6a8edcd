// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does nginx do with the same files over TLS 1.3 and TCP?
//!
//! curl counts the bytes and checks nothing. Both of its ways to have several requests under way,
//! many connections and HTTP/2, are tried first; the faster is the contender.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median};
use tempfile::TempDir;

use super::server::loopback;
use super::stage::{Load, Stage};

const HTTPS: &str = "relay.get.hot's load, against the same bytes from nginx over TLS 1.3 to curl, \
                     which verifies nothing";
const PROTOCOLS: [&str; 2] = ["--http1.1", "--http2"];
/// How often the server is asked whether it has started.
const STARTS_MAX: u32 = 50;

/// Whether nginx, curl and openssl are here.
///
/// # Errors
/// Names what is missing, and the remedy.
pub fn find() -> Result<(), String> {
    for (program, version) in [("nginx", "-v"), ("curl", "--version"), ("openssl", "version")] {
        let asked = Command::new(program).arg(version).output();
        asked.map_err(|error| {
            format!("{program} does not start ({error}); run benches/install-nginx")
        })?;
    }
    Ok(())
}

/// A server of files. Dropping it ends it.
struct Nginx {
    child: Child,
    base: String,
    directory: TempDir,
}

impl Nginx {
    /// Serves the shards of a stage.
    fn start(stage: &Stage) -> Self {
        let directory = stage.place.fresh();
        let path = directory.path();
        for number in 0..stage.shards.count() {
            let file = path.join(format!("{number}.shard"));
            fs::write(file, stage.shards.bytes(number)).expect("room");
        }
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(path)
            .output();
        assert!(made.is_ok_and(|made| made.status.success()), "openssl makes a certificate");
        let port = {
            let free = TcpListener::bind(loopback(0)).expect("a free port");
            free.local_addr().expect("it is bound").port()
        };
        fs::write(path.join("nginx.conf"), configuration(path, port)).expect("room");
        let mut command = Command::new("nginx");
        command.arg("-e").arg(path.join("error.log")).arg("-c").arg(path.join("nginx.conf"));
        let child = command.stderr(Stdio::null()).spawn().expect("it was there at the start");
        let base = format!("https://127.0.0.1:{port}");
        let nginx = Self { child, base, directory };
        let count = 1;
        let answers =
            (0..STARTS_MAX).any(|_| nginx.ask(Load { count, in_flight: 1 }, PROTOCOLS[0], 1));
        assert!(answers, "nginx starts: {}", nginx.complaint());
        nginx
    }

    /// Has curl get files; whether it got all of them.
    fn ask(&self, load: Load, protocol: &str, files: usize) -> bool {
        let mut config = String::new();
        for turn in 0..load.count {
            let url = format!("{}/{}.shard", self.base, turn % files);
            config.push_str(&format!("url = \"{url}\"\noutput = \"/dev/null\"\n"));
        }
        let path = self.directory.path().join("curl.conf");
        fs::write(&path, config).expect("room");
        let ran = Command::new("curl")
            .args(["--silent", "--insecure", "--fail", "--tlsv1.3", protocol])
            .args(["--retry-connrefused", "--retry", "3", "--retry-delay", "1"])
            .args(["--parallel", "--parallel-max", &load.in_flight.to_string(), "--config"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        ran.is_ok_and(|status| status.success())
    }

    fn complaint(&self) -> String {
        fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers.
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process has a number");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn configuration(path: &Path, port: u16) -> String {
    let path = path.display();
    // Root's nginx would drop to a user that cannot read here.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    format!(
        "daemon off; {user} worker_processes auto; pid {path}/nginx.pid;\n\
         events {{}}\n\
         http {{\n\
         access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n\
         client_body_temp_path {path}/1; proxy_temp_path {path}/2; fastcgi_temp_path {path}/3;\n\
         uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;\n\
         server {{ listen 127.0.0.1:{port} ssl http2; root {path}; ssl_protocols TLSv1.3;\n\
         ssl_certificate {path}/certificate.pem; ssl_certificate_key {path}/key.pem; }}\n\
         }}\n"
    )
}

/// `relay.get.https`.
pub fn get(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((160, 9), (40, 5));
    let stage = Stage::hot();
    let nginx = Nginx::start(&stage);
    let (load, files) = (Load { count, in_flight: 4 }, stage.shards.count());
    let ask = |protocol| {
        stage.mib_per_sec(load, || {
            assert!(nginx.ask(load, protocol, files), "curl gets all: {}", nginx.complaint());
        })
    };
    let tried = PROTOCOLS.map(|protocol| (protocol, ask(protocol)));
    let fastest = if tried[0].1 > tried[1].1 { PROTOCOLS[0] } else { PROTOCOLS[1] };
    let (ours, against) = interleaved(
        rounds,
        |round| stage.mib_per_sec(load, || drop(stage.verified(load, round))),
        |_| ask(fastest),
    );
    let raw = json!({
        "requests": count, "bytes": stage.shard_bytes, "in_flight": load.in_flight,
        "curl": fastest, "sweep_mib_per_sec": tried, "ours_rounds": ours,
        "against_rounds": against, "note": format!("nginx to curl {fastest}"),
    });
    Figure::new(("relay.get.https", HTTPS), (median(&ours), median(&against)), "MiB/s", raw)
}
