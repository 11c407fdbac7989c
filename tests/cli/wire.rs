//! HTTP by hand: bytes to a server, and what comes back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a connection.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes and ends there; all that comes back. The server may close
/// before it has read everything.
pub(crate) fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    let close = b"\r\n\r\n";
    let sent = match bytes
        .strip_suffix(close)
        .filter(|_| !bytes.starts_with(b"POST"))
    {
        // The connection is not kept, so that the answer has an end.
        Some(head) => [head, b"\r\nConnection: close", close].concat(),
        None => bytes.to_vec(),
    };
    let _ = stream.write_all(&sent);
    read(&mut stream)
}

/// Sends bytes as they are and reads to the end.
pub(crate) fn raw(address: &str, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    read(&mut stream)
}

/// Sends bytes, closes our side, and reads to the end.
pub(crate) fn cut_short(address: &str, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    read(&mut stream)
}

/// All that comes until the server closes.
pub(crate) fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    // A connection that is reset has said all it will.
    while let Ok(count @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request with a JSON body.
pub(crate) fn post(address: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A response taken apart.
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: String,
}

/// Takes a response of known length apart.
pub(crate) fn cut(response: &str) -> Answer {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no status in {response:?}")),
        body: body.to_owned(),
    }
}
