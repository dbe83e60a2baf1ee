//! A client of NATS, to see that a server is one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::LIMIT;

/// A client that speaks the protocol of NATS itself.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    /// What the server says of itself.
    pub(crate) info: Value,
    subscriptions: u32,
}

impl Client {
    /// Connects to an address and port.
    #[track_caller]
    pub(crate) fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut client = Self { stream: BufReader::new(stream), info: Value::Null, subscriptions: 0 };
        let info = client.line();
        client.info = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        client.say("CONNECT {\"verbose\":false}\r\n");
        client.settle();
        client
    }

    fn say(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next line that is not the server's question whether we are still here.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            match line.trim_end() {
                "PING" => self.say("PONG\r\n"),
                line => return line.to_owned(),
            }
        }
    }

    /// Waits until the server has dealt with all that was said.
    fn settle(&mut self) {
        self.say("PING\r\n");
        assert_eq!(self.line(), "PONG");
    }

    /// Has messages of a subject sent to it.
    pub(crate) fn subscribe(&mut self, subject: &str) {
        self.subscriptions += 1;
        self.say(&format!("SUB {subject} {}\r\n", self.subscriptions));
        self.settle();
    }

    /// Sends a message, which may ask for an answer to another subject.
    pub(crate) fn publish(&mut self, subject: &str, reply: &str, message: &str) {
        self.say(&format!("PUB {subject} {reply} {}\r\n{message}\r\n", message.len()));
    }

    /// The next message: its subject and content.
    pub(crate) fn next(&mut self) -> (String, String) {
        let line = self.line();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "MSG", "{line}");
        let mut content = vec![0; words.last().unwrap().parse::<usize>().unwrap() + 2];
        self.stream.read_exact(&mut content).unwrap();
        let content = String::from_utf8(content).unwrap();
        (words[1].to_owned(), content.strip_suffix("\r\n").unwrap().to_owned())
    }

    /// The answer to a message.
    #[track_caller]
    pub(crate) fn ask(&mut self, subject: &str, message: &str) -> Value {
        let reply = format!("_INBOX.{}", self.subscriptions);
        self.subscribe(&reply);
        self.publish(subject, &reply, message);
        let (to, answer) = self.next();
        assert_eq!(to, reply);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    /// Makes a stream that keeps messages in files.
    pub(crate) fn keep(&mut self, stream: &str, subject: &str) {
        let config = json!({ "name": stream, "subjects": [subject], "storage": "file" });
        self.ask(&format!("$JS.API.STREAM.CREATE.{stream}"), &config.to_string());
    }

    /// A message that a stream keeps.
    pub(crate) fn kept(&mut self, stream: &str, number: u64) -> String {
        let answer =
            self.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &json!({ "seq": number }).to_string());
        let content = STANDARD.decode(answer["message"]["data"].as_str().unwrap()).unwrap();
        String::from_utf8(content).unwrap()
    }
}
