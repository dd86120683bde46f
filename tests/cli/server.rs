//! A server that gives prepared answers by method and path.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use serde_json::Value;

/// Requests as they came: the line of method and target, and the body.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// Answers until it is dropped.
pub struct Server {
    address: SocketAddr,
    asked: Asked,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts with answers by `METHOD /path`: status and body. Everything else is 404.
    pub fn start(answers: BTreeMap<String, (u16, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (Asked::default(), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                answer(connection.unwrap(), &answers, &seen);
            }
        });
        Self { address, asked, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Method and target of every request so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    /// The body of the last request to this route.
    pub fn body_of(&self, route: &str) -> Value {
        let asked = self.asked.lock().unwrap();
        let found = asked.iter().rfind(|(line, _)| line.split('?').next() == Some(route)).unwrap();
        serde_json::from_str(&found.1).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn answer(mut connection: TcpStream, answers: &BTreeMap<String, (u16, String)>, asked: &Asked) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let line = first.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let route = line.split('?').next().unwrap_or_default().to_owned();
    asked.lock().unwrap().push((line, String::from_utf8(body).unwrap()));
    let missing = (404, "not found".to_owned());
    let (status, text) = answers.get(&route).unwrap_or(&missing);
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nX-Nomad-Index: 42\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(text.as_bytes()));
}
