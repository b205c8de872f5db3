//! A client's DTLS session and its socket. It does not look whose certificate the server shows: that is up to whoever trusts
//! the server with more than a test.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Dtls, DtlsCertificate, Output};
use tokio::net::UdpSocket;
use tokio::time::{sleep_until, timeout};

use crate::Certificate;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest datagram, in bytes.
const DATAGRAM_LEN_MAX: usize = 65_535;

pub(super) struct DtlsSocket {
    socket: UdpSocket,
    dtls: Dtls,
    /// When the session wants to send again what was not answered.
    wake: Instant,
    messages: VecDeque<Vec<u8>>,
    is_connected: bool,
    is_closed: bool,
    /// Where a record is written or read.
    buffer: Vec<u8>,
}

impl DtlsSocket {
    /// Shakes hands on `socket`, which is connected to the server. `own` is shown where the server asks for a certificate.
    pub(super) async fn connect(socket: UdpSocket, own: Certificate) -> io::Result<DtlsSocket> {
        let own = DtlsCertificate {
            certificate: own.certificate,
            private_key: own.private_key,
        };
        let now = Instant::now();
        let mut dtls = Dtls::new_12(Arc::new(dimpl::Config::default()), own, now);
        dtls.set_active(true);
        let mut session = DtlsSocket {
            socket,
            dtls,
            wake: now,
            messages: VecDeque::new(),
            is_connected: false,
            is_closed: false,
            buffer: vec![0; DATAGRAM_LEN_MAX],
        };
        let shaken = async {
            while !session.is_connected {
                session.progress().await?;
            }
            Ok(())
        };
        match timeout(HANDSHAKE_TIMEOUT, shaken).await {
            Ok(shaken) => shaken.map(|()| session),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no DTLS handshake in time",
            )),
        }
    }

    pub(super) async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        let sent = self.dtls.send_application_data(message);
        sent.map_err(io::Error::other)?;
        self.follow().await
    }

    /// One whole message; may be given up at any time without losing one.
    pub(super) async fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(message);
            }
            self.progress().await?;
        }
    }

    /// Takes in one datagram, or lets the time that has come do its work.
    async fn progress(&mut self) -> io::Result<()> {
        if self.is_closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let received = tokio::select! {
            received = self.socket.recv(&mut self.buffer) => Some(received?),
            () = sleep_until(self.wake.into()) => None,
        };
        let now = Instant::now();
        self.dtls.handle_timeout(now).map_err(io::Error::other)?; // Its clock comes first.
        if let Some(len) = received {
            let handled = self.dtls.handle_packet(&self.buffer[..len]);
            handled.map_err(io::Error::other)?;
        }
        self.follow().await
    }

    /// Does what the session wants done.
    async fn follow(&mut self) -> io::Result<()> {
        loop {
            match self.dtls.poll_output(&mut self.buffer) {
                Output::Packet(packet) => drop(self.socket.send(packet).await?),
                Output::ApplicationData(message) => self.messages.push_back(message.to_vec()),
                Output::Connected => self.is_connected = true,
                Output::CloseNotify => self.is_closed = true,
                Output::Timeout(at) => {
                    self.wake = at;
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}
