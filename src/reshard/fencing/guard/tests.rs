use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::post::{Means, Patience, Post, PostError, Wanted};
use super::*;
use crate::reshard::fence::Rules;

const LIST: &str = "id=7 addr=a name=keyferry:job:j1 age=1\nid=8 addr=b name=keyferry:job:j2 age=1\nid=9 addr=c name= age=1\n";

async fn request(from: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut line = String::new();
    if from.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let count: usize = line.trim_end().strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        line.clear();
        from.read_line(&mut line).await.ok()?;
        let length: usize = line.trim_end().strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; length + 2];
        from.read_exact(&mut word).await.ok()?;
        word.truncate(length);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

/// A server that is asked until `until`; everything it was asked.
async fn serve(connection: TcpStream, until: &str, answer_to_list: &str) -> Vec<String> {
    let mut connection = BufReader::new(connection);
    let mut asked = Vec::new();
    while let Some(words) = request(&mut connection).await {
        let text = words.join(" ");
        let reply = match text.as_str() {
            "CLIENT LIST" => answer_to_list.to_owned(),
            "EXEC" => "*1\r\n+OK\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        asked.push(text);
        if asked.last().is_some_and(|last| last == until) {
            return asked;
        }
        connection.write_all(reply.as_bytes()).await.unwrap();
    }
    asked
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn wanted() -> Wanted {
    let mut wanted = Wanted::default();
    wanted.keys.insert("k".to_owned(), Some("v".to_owned()));
    wanted
}

/// The lost connection's transaction may still lie in its socket.
#[tokio::test]
async fn a_connection_that_was_lost_is_ended_before_anything_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string().parse().unwrap();
    let post = Post::at("j1", server, &UpstreamConfig::default(), Means::Keys);
    let kept = post.keep(wanted(), Patience::Endless);
    let (first, _) = listener.accept().await.unwrap();
    let asked = serve(first, "EXEC", &bulk("")).await;
    assert!(
        asked.contains(&"CLIENT SETNAME keyferry:job:j1".to_owned()),
        "{asked:?}"
    );
    let (second, _) = listener.accept().await.unwrap();
    let asked = serve(second, "MULTI", &bulk(LIST)).await;
    let kills = asked.iter().filter(|text| text.starts_with("CLIENT KILL"));
    assert_eq!(kills.collect::<Vec<_>>(), ["CLIENT KILL ID 7"], "{asked:?}");
    drop(kept);
}

#[tokio::test]
async fn a_server_that_does_not_let_us_has_no_fence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string().parse().unwrap();
    let rules = Rules::of("default", ["user default on nopass ~* &* +@all"], true).unwrap();
    let means = Means::Users(rules);
    let post = Post::at("j1", server, &UpstreamConfig::default(), means);
    let kept = post.keep(wanted(), Patience::Endless);
    let (first, _) = listener.accept().await.unwrap();
    let serving = serve(first, "MULTI", "-NOPERM no\r\n");
    let (asked, kept) = tokio::join!(serving, kept.done());
    assert!(!asked.contains(&"MULTI".to_owned()), "{asked:?}");
    let Err(PostError::Refused { doing, .. }) = kept else {
        panic!("{kept:?}");
    };
    assert!(doing.contains("CLIENT LIST"), "{doing}");
}
