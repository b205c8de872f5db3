//! Other settings and another certificate come into force while calls go on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use offhook::config::Config;
use offhook::tls::development;
use relay_service::client::Client;
use tokio::task::JoinHandle;

use crate::support::{PATIENCE, TestServer, binding_answer, echo, echo_peer, free_port, loopback};

fn open_to_loopback(config: &mut Config) {
    config.relay.peers_allow = vec!["127.0.0.0/8".to_owned()];
}

/// A certificate for `localhost` by the authority of `t`, in place of the one before.
fn renew(t: &TestServer, name: &str) {
    let files = development::files(&t.config.data_dir);
    let pem = std::fs::read_to_string(&files.authority).unwrap();
    let key = std::fs::read_to_string(files.authority.with_extension("key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&pem, key).unwrap();
    let names = vec!["localhost".to_owned(), name.to_owned()];
    let params = rcgen::CertificateParams::new(names).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    std::fs::write(&files.certificate, made.pem()).unwrap();
}

/// The names in the certificate that a new client on `address` is shown.
async fn shown(t: &TestServer, address: SocketAddr) -> Vec<String> {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let tls = t.handshake(tcp).await;
    let chain = tls.get_ref().1.peer_certificates().unwrap();
    let names = development::names_in_der(&chain[0]);
    names.into_iter().collect()
}

/// Relays to `peer` and back without a pause until `done`; returns how many packets that were. Panics when one is lost.
async fn load(mut client: Client, peer: SocketAddr, done: Arc<AtomicBool>) -> JoinHandle<u32> {
    client.allocate(None).await.unwrap();
    client.channel_bind(0x4000, peer).await.unwrap();
    tokio::spawn(async move {
        let mut packets = 0_u32;
        while !done.load(Ordering::Relaxed) {
            echo(&mut client, &packets.to_be_bytes()).await;
            packets += 1;
        }
        client.refresh(600).await.unwrap();
        packets
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_certificate_change_under_load_and_no_packet_is_lost() {
    let tls_port = free_port();
    let t = TestServer::with_tls(|config| {
        open_to_loopback(config);
        config.relay.listen_tls = vec![loopback(tls_port)];
    })
    .await;
    let relay_tls = loopback(tls_port);
    let done = Arc::new(AtomicBool::new(false));
    let peer = echo_peer().await;
    let own_port = tokio::net::TcpStream::connect(relay_tls).await.unwrap();
    let clients = [
        t.turn_udp().await,
        t.turn_udp().await,
        t.turn(t.connect().await),
        t.turn(t.connect_tls().await),
        t.turn(t.handshake(own_port).await),
    ];
    let mut loads = Vec::new();
    for client in clients {
        loads.push(load(client, peer, done.clone()).await);
    }

    for round in 1..=5 {
        let name = format!("round-{round}.example");
        renew(&t, &name);
        let changes = t
            .reload(|config| {
                open_to_loopback(config);
                config.relay.allocations_per_user_max = 64 + round;
                config.relay.packets_per_second_per_account_max = 10_000_000 * (round as u64 % 2);
                config.relay.peers_deny = vec![format!("192.0.2.{round}")];
                config.limits.connections_max += round;
                config.relay.port_min += 1;
            })
            .await
            .unwrap();
        assert!(changes.live.contains(&"relay.peers_deny"), "{changes:?}");
        assert_eq!(changes.restart, ["relay.port_min"]);
        for address in [t.address, relay_tls] {
            assert!(shown(&t, address).await.contains(&name), "{name}");
        }
    }

    // A certificate that can't be served changes nothing, and neither do settings that are wrong.
    std::fs::write(t.config.tls.certificate_file.clone().unwrap(), "nonsense").unwrap();
    t.reload(open_to_loopback).await.unwrap();
    let wrong = t.reload(|config| config.relay.peers_deny = vec!["nonsense".to_owned()]);
    let error = format!("{:#}", wrong.await.unwrap_err());
    assert!(error.contains("`peers_deny` is wrong"), "{error}");
    let names = shown(&t, t.address).await;
    assert!(names.contains(&"round-5.example".to_owned()), "{names:?}");

    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    done.store(true, Ordering::Relaxed);
    for load in loads {
        let packets = load.await.unwrap();
        assert!(packets > 100, "{packets}");
    }
    t.server.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_denied_is_cut_off_and_an_origin_is_let_in() {
    let t = TestServer::configured(open_to_loopback).await;
    let (one, other) = (echo_peer().await, echo_peer().await);
    let mut client = t.turn_udp().await;
    client.allocate(None).await.unwrap();
    client.channel_bind(0x4000, one).await.unwrap();
    client.channel_bind(0x4001, other).await.unwrap();
    echo(&mut client, b"reached").await;
    let upgrade = "GET /v1/calls HTTP/1.1\r\nHost: a\r\nOrigin: https://b.example\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: calls.v1\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    assert!(t.ask(upgrade).await.starts_with("HTTP/1.1 403 "));

    t.reload(|config| {
        open_to_loopback(config);
        config.relay.peers_deny = vec![one.to_string()];
        config.allowed_origins = vec!["https://b.example".to_owned()];
    })
    .await
    .unwrap();
    client.send_channel(0x4000, b"denied").await.unwrap();
    client.send_channel(0x4001, b"allowed").await.unwrap();
    assert_eq!(client.receive().await.unwrap().payload, b"allowed");
    assert!(client.channel_bind(0x4000, one).await.is_err());
    assert!(!t.ask(upgrade).await.starts_with("HTTP/1.1 403 "));
    drop(client);
    t.server.stop().await;
}

#[tokio::test]
async fn a_changed_secret_is_live_beside_the_one_before() {
    let t = TestServer::configured(|_| {}).await;
    let path = t.config.data_dir.join("secrets.toml");
    let old = std::fs::read_to_string(&path).unwrap();
    let line = old.lines().find(|line| line.starts_with("turn ")).unwrap();
    let before = line.replace("turn =", "turn_before =");
    let new = old.replace(line, &format!("turn = \"another\"\n{before}"));

    let mut holds_old = t.turn_udp().await;
    std::fs::write(&path, &new).unwrap();
    let changes = t.reload(|_| {}).await.unwrap();
    assert_eq!(changes.live, ["secrets.toml: turn"]);
    holds_old.allocate(None).await.unwrap();
    t.turn_udp().await.allocate(None).await.unwrap();

    std::fs::write(&path, new.replace(&before, "")).unwrap();
    let mut too_old = {
        std::fs::write(&path, &old).unwrap();
        let client = t.turn_udp().await;
        std::fs::write(&path, new.replace(&before, "")).unwrap();
        client
    };
    t.reload(|_| {}).await.unwrap();
    assert!(too_old.allocate(None).await.is_err());
    t.turn_udp().await.allocate(None).await.unwrap();
    t.server.stop().await;
}

fn offhook(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.current_dir(folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OFFHOOK_")) {
        command.env_remove(name);
    }
    command.args(["--config", "offhook.toml"]);
    command
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended, as it should.
        let _ = self.0.wait();
    }
}

#[test]
fn the_process_reads_its_file_again_and_names_what_needs_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (port, relay_port) = (free_port(), free_port());
    let write = |more: &str, listen: u16| {
        let text = format!(
            "listen = [\"127.0.0.1:{listen}\"]\n{more}\n[relay]\nlisten_udp = [\"127.0.0.1:{relay_port}\"]\nlisten_tcp = []\n[sfu]\nport = 0\n"
        );
        std::fs::write(dir.path().join("offhook.toml"), text).unwrap();
    };
    let reload = || {
        let output = offhook(dir.path()).arg("reload").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    write("", port);
    let (success, said) = reload();
    assert!(
        !success && said.contains("no process with the signaling role serves from"),
        "{said}"
    );

    let child = offhook(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let mut out = BufReader::new(process.0.stdout.take().unwrap()).lines();
    assert!(out.any(|line| line.unwrap().contains("is ready")));
    let mut log = BufReader::new(process.0.stderr.take().unwrap()).lines();
    let mut logged = |words: &str| {
        let line = log.find(|line| line.as_ref().unwrap().contains(words));
        line.expect("the log goes on").unwrap()
    };

    write("allowed_origin = [\"*\"]", port);
    let (success, said) = reload();
    assert!(
        !success && said.contains("offhook.toml:2: unknown setting"),
        "{said}"
    );
    let pid = Pid::from_raw(i32::try_from(process.0.id()).unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    let line = logged("Keeping the settings in use");
    assert!(
        line.contains("offhook.toml:2: unknown setting `allowed_origin`"),
        "{line}"
    );
    let mut scrape = TcpStream::connect(loopback(port)).unwrap();
    scrape
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut figures = String::new();
    scrape.read_to_string(&mut figures).unwrap();
    assert!(
        figures.contains("server_reloads_total{outcome=\"refused\"} 1"),
        "{figures}"
    );

    write(
        "allowed_origins = [\"*\"]\nlog.filter = \"info,offhook=debug\"",
        free_port(),
    );
    let (success, said) = reload();
    assert!(
        success && said.contains(&format!("Told process {pid}")),
        "{said}"
    );
    let line = logged("Read the settings again");
    assert!(line.contains("allowed_origins, log.filter"), "{line}");
    let line = logged("Needs a restart");
    assert!(line.contains("listen"), "{line}");

    kill(pid, Signal::SIGTERM).unwrap();
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn a_reload_in_the_middle_of_the_start_is_done_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (port, relay_port) = (free_port(), free_port());
    // The start waits for its answer.
    let stun = UdpSocket::bind(loopback(0)).unwrap();
    stun.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = stun.local_addr().unwrap();
    let write = |more: &str| {
        let text = format!(
            "listen = [\"127.0.0.1:{port}\"]\n{more}\n[relay]\nlisten_udp = [\"127.0.0.1:{relay_port}\"]\n\
             listen_tcp = []\nfind_public_ips_by = [\"{asked}\"]\n[sfu]\nport = 0\n"
        );
        std::fs::write(dir.path().join("offhook.toml"), text).unwrap();
    };
    write("");
    let child = offhook(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let err = process.0.stderr.take().unwrap();
    let (sender, log) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(err).lines().map_while(Result::ok);
        lines.try_for_each(|line| sender.send(line))
    });

    let mut request = [0; 1_500];
    let (_, from) = stun.recv_from(&mut request).unwrap();
    write("allowed_origins = [\"*\"]");
    let told = offhook(dir.path()).arg("reload").output().unwrap();
    assert!(told.status.success(), "{told:?}");
    let answer = binding_answer(&request, (Ipv4Addr::LOCALHOST, from.port()));
    stun.send_to(&answer, from).unwrap();
    loop {
        let line = log.recv_timeout(PATIENCE).expect("it reads them again");
        if line.contains("Read the settings again") {
            assert!(line.contains("allowed_origins"), "{line}");
            break;
        }
    }

    let pid = Pid::from_raw(i32::try_from(process.0.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(process.0.wait().unwrap().success());
}
