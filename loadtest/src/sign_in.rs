//! Access tokens by the demo sign-in, over one plain HTTP/1.1 connection that stays open.

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::client::{self, Target};

/// How many sign in from one address at once; the server takes no more.
const PER_ADDRESS: usize = 10;

#[derive(Deserialize)]
struct SignedIn {
    token: String,
    user: String,
}

/// A User that has signed in.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// The User's id.
    pub(crate) id: String,
    /// The access token.
    pub(crate) token: String,
}

/// Signs in `count` Users.
pub(crate) async fn sign_in(target: &Target, count: usize) -> anyhow::Result<Vec<User>> {
    sign_in_behind(target, 0, count).await
}

/// Signs in `count` Users beside the first `before`.
pub(crate) async fn sign_in_behind(
    target: &Target,
    before: usize,
    count: usize,
) -> anyhow::Result<Vec<User>> {
    let mut users = Vec::with_capacity(count);
    while users.len() < count {
        let number = before + users.len();
        let address = number / PER_ADDRESS;
        let free = PER_ADDRESS - number % PER_ADDRESS;
        let mut connection = BufReader::new(target.stream(address * client::PER_ADDRESS).await?);
        for _ in 0..free.min(count - users.len()) {
            let name = format!("load{}", before + users.len());
            users.push(request(&mut connection, target, &name).await?);
        }
    }
    Ok(users)
}

async fn request(
    connection: &mut BufReader<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>,
    target: &Target,
    name: &str,
) -> anyhow::Result<User> {
    let body = serde_json::json!({ "name": name }).to_string();
    let request = format!(
        "POST /demo/sign-in HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        target.authority,
        body.len()
    );
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;

    let mut line = String::new();
    connection.read_line(&mut line).await?;
    let status = line.clone();
    let mut length = 0;
    loop {
        line.clear();
        if connection.read_line(&mut line).await? == 0 {
            bail!("the server closed the connection during the sign-in: {status}");
        }
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().context("no length")?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    let text = String::from_utf8_lossy(&body);
    if !status.contains(" 200 ") && !status.contains(" 201 ") {
        bail!("the demo sign-in is refused: {} {text}", status.trim());
    }
    let SignedIn { token, user } =
        serde_json::from_str(&text).with_context(|| format!("not a sign-in: {text}"))?;
    Ok(User { id: user, token })
}
