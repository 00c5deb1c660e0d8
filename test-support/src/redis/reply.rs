//! One command to a Redis server, and its reply as text: as much of its protocol as tests need.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::Error;

/// Sends one command on a connection of its own. Each read waits at most `timeout`.
pub(super) fn ask(address: SocketAddr, words: &[&str], timeout: Duration) -> Result<String, Error> {
    let command = words.join(" ");
    match exchange(address, words, timeout) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(reason)) => Err(Error::Redis { command, reason }),
        Err(error) => Err(Error::system(format!("`{command}` to the Redis server on {address}"))(error)),
    }
}

/// Inside: the reply, or the server's refusal.
type Reply = Result<String, String>;

fn exchange(address: SocketAddr, words: &[&str], timeout: Duration) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(request.as_bytes())?;
    read(&mut BufReader::new(stream))
}

/// Reads one reply, with the replies inside it.
fn read(stream: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(|| strange(&line))?;
    let length = || rest.parse::<i64>().map_err(|_| strange(&line));
    match kind {
        "+" | ":" => Ok(Ok(rest.to_owned())),
        "-" => Ok(Err(rest.to_owned())),
        "$" => match usize::try_from(length()?) {
            Ok(length) => bulk(stream, length).map(Ok),
            // -1: there is nothing.
            Err(_) => Ok(Ok(String::new())),
        },
        // A refusal inside an array is one of its parts.
        "*" => {
            let parts = (0..length()?).map(|_| read(stream).map(|part| part.unwrap_or_else(|refusal| refusal)));
            parts.collect::<io::Result<Vec<_>>>().map(|parts| Ok(parts.join("\n")))
        }
        _ => Err(strange(&line)),
    }
}

/// A text of known length, and the line's end behind it.
fn bulk(stream: &mut impl BufRead, length: usize) -> io::Result<String> {
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

fn strange(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply of Redis: {line:?}"))
}
