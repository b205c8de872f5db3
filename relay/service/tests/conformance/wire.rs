//! A client's end of each transport.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use relay_core::Transport;
use relay_stun::HEADER_LEN;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::common::dtls::DtlsClient;

/// The longest datagram that is received, in bytes.
const DATAGRAM_LEN_MAX: usize = 2048;

type Tls = StreamOwned<ClientConnection, TcpStream>;

pub(crate) enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(RefCell<Box<Tls>>),
    Dtls(RefCell<Box<DtlsClient>>),
}

impl Wire {
    /// Reaches `server` over `transport`, where TLS trusts what `tls` does.
    pub(crate) fn connect(
        transport: Transport,
        server: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> Wire {
        match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                socket.connect(server).unwrap();
                Wire::Udp(socket)
            }
            Transport::Tcp => Wire::Tcp(TcpStream::connect(server).unwrap()),
            Transport::Tls => {
                let name = ServerName::try_from("localhost").unwrap();
                let session = ClientConnection::new(tls.clone(), name).unwrap();
                let stream = TcpStream::connect(server).unwrap();
                Wire::Tls(RefCell::new(Box::new(StreamOwned::new(session, stream))))
            }
            Transport::Dtls => {
                let mut client = DtlsClient::new(server);
                client.shake_hands();
                Wire::Dtls(RefCell::new(Box::new(client)))
            }
        }
    }

    /// The client's own address.
    pub(crate) fn local(&self) -> SocketAddr {
        match self {
            Wire::Udp(socket) => socket.local_addr(),
            Wire::Tcp(stream) => stream.local_addr(),
            Wire::Tls(stream) => stream.borrow().sock.local_addr(),
            Wire::Dtls(client) => client.borrow().socket.local_addr(),
        }
        .unwrap()
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        match self {
            Wire::Udp(socket) => drop(socket.send(bytes).unwrap()),
            Wire::Tcp(stream) => (&*stream).write_all(bytes).unwrap(),
            Wire::Tls(stream) => {
                let mut stream = stream.borrow_mut();
                stream.write_all(bytes).unwrap();
                stream.flush().unwrap();
            }
            Wire::Dtls(client) => client.borrow_mut().send(bytes),
        }
    }

    /// One message; `None` for silence, and for a stream that was ended.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        match self {
            Wire::Udp(socket) => {
                let mut bytes = vec![0; DATAGRAM_LEN_MAX];
                socket.set_read_timeout(Some(patience)).unwrap();
                let len = socket.recv(&mut bytes).ok()?;
                bytes.truncate(len);
                Some(bytes)
            }
            Wire::Dtls(client) => client.borrow_mut().receive(patience),
            Wire::Tcp(_) | Wire::Tls(_) => self.of_stream(patience, |stream| frame(stream)).ok(),
        }
    }

    /// Bytes of a stream that carries no messages.
    pub(crate) fn read(&self, len: usize, patience: Duration) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.of_stream(patience, |stream| stream.read_exact(&mut bytes));
        read.unwrap();
        bytes
    }

    fn of_stream<T>(
        &self,
        patience: Duration,
        read: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Wire::Tcp(stream) => {
                stream.set_read_timeout(Some(patience))?;
                read(&mut &*stream)
            }
            Wire::Tls(stream) => {
                let mut stream = stream.borrow_mut();
                stream.sock.set_read_timeout(Some(patience))?;
                read(&mut **stream)
            }
            Wire::Udp(_) | Wire::Dtls(_) => panic!("no stream"),
        }
    }
}

/// One STUN message, or one ChannelData message with its padding (RFC 8656 §12.5).
fn frame(stream: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes)?;
    let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let whole = match bytes[0] {
        0..=3 => HEADER_LEN + len,
        _ => (4 + len).next_multiple_of(4),
    };
    bytes.resize(whole, 0);
    stream.read_exact(&mut bytes[4..])?;
    Ok(bytes)
}
