//! A Consul agent for tests: keeps what is registered over its HTTP API, and lets a test say how checks stand.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;

use serde_json::Value;
use serde_json::json;

/// What the agent knows.
#[derive(Default)]
struct Known {
    /// As `/v1/agent/services` tells it.
    services: BTreeMap<String, Value>,
    /// As `/v1/agent/checks` tells it.
    checks: BTreeMap<String, Value>,
    /// Bodies of registrations, by id of the service.
    bodies: BTreeMap<String, Value>,
    registrations: usize,
    /// Keys and their values.
    keys: BTreeMap<String, String>,
    ended: bool,
}

/// Ends with its value.
pub struct Consul {
    pub address: String,
    known: Arc<Mutex<Known>>,
}

impl Consul {
    /// Listens on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let known = Arc::new(Mutex::new(Known::default()));
        let shared = Arc::clone(&known);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.lock().expect("whole").ended {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, known }
    }

    /// Ids of all services.
    pub fn services(&self) -> Vec<String> {
        self.known.lock().expect("whole").services.keys().cloned().collect()
    }

    /// The body with which a service was registered last; the id ends like this.
    pub fn body(&self, ending: &str) -> Option<Value> {
        let known = self.known.lock().expect("whole");
        known.bodies.iter().find(|(id, _)| id.ends_with(ending)).map(|(_, body)| body.clone())
    }

    /// How often anything has been registered.
    pub fn registrations(&self) -> usize {
        self.known.lock().expect("whole").registrations
    }

    /// Statuses of all checks.
    pub fn statuses(&self) -> Vec<String> {
        let known = self.known.lock().expect("whole");
        known.checks.values().map(|check| check["Status"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Decides how every check stands.
    pub fn set_checks(&self, status: &str) {
        for check in self.known.lock().expect("whole").checks.values_mut() {
            check["Status"] = status.into();
        }
    }

    /// Forgets everything, as an agent does whose data are lost.
    pub fn forget(&self) {
        let mut known = self.known.lock().expect("whole");
        known.services.clear();
        known.checks.clear();
        known.bodies.clear();
    }

    /// Sets a key.
    pub fn set_key(&self, path: &str, value: &str) {
        self.known.lock().expect("whole").keys.insert(path.to_owned(), value.to_owned());
    }

    /// Somebody else's service, or one of an earlier agent.
    pub fn plant(&self, id: &str, service: Value) {
        self.known.lock().expect("whole").services.insert(id.to_owned(), service);
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.known.lock().expect("whole").ended = true;
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(stream: TcpStream, known: &Mutex<Known>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        let (status, answer) = respond(&mut known.lock().expect("whole"), method, path, body);
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len())?;
    }
}

fn respond(known: &mut Known, method: &str, path: &str, body: Value) -> (&'static str, String) {
    let ok = |value: Value| ("200 OK", value.to_string());
    let last = || unescaped(path.rsplit('/').next().unwrap_or_default());
    match (method, path) {
        ("GET", "/v1/agent/self") => ok(
            json!({"Config": {"Datacenter": "dc1", "NodeName": "fake", "Server": true, "Version": "1.20.1"}}),
        ),
        ("GET", "/v1/agent/services") => ok(json!(known.services)),
        ("GET", "/v1/agent/checks") => ok(json!(known.checks)),
        ("GET", path) if path.starts_with("/v1/kv/") => {
            let path = unescaped(path.trim_start_matches("/v1/kv/"));
            let wanted =
                |key: &str| key == path || (path.ends_with('/') || path.is_empty()) && key.starts_with(&path);
            let found = known.keys.iter().filter(|(key, _)| wanted(key));
            let pairs: Vec<Value> = found
                .map(|(key, value)| json!({"Key": key, "Value": encoded(value), "ModifyIndex": 1}))
                .collect();
            if pairs.is_empty() { ("404 Not Found", String::new()) } else { ok(json!(pairs)) }
        }
        ("GET", path) if path.starts_with("/v1/health/service/") => {
            let name = last();
            let own = known.services.iter().filter(|(_, service)| service["Service"] == name.as_str());
            let instances = own.map(|(id, service)| {
                let checks = known.checks.values().filter(|check| check["ServiceID"] == id.as_str());
                let node = json!({"Node": "fake", "Address": "10.0.0.9", "Datacenter": "dc1"});
                json!({"Node": node, "Service": service, "Checks": checks.collect::<Vec<_>>()})
            });
            ok(instances.collect())
        }
        ("PUT", "/v1/agent/service/register") => {
            register(known, body);
            ok(Value::Null)
        }
        ("PUT", path) if path.starts_with("/v1/agent/service/deregister/") => {
            let id = last();
            known.bodies.remove(&id);
            known.checks.retain(|_, check| check["ServiceID"] != id.as_str());
            match known.services.remove(&id) {
                Some(_) => ok(Value::Null),
                None => ("404 Not Found", format!("Unknown service ID {id:?}")),
            }
        }
        ("PUT", path) if path.starts_with("/v1/agent/check/update/") => match known.checks.get_mut(&last()) {
            Some(check) => {
                check["Status"] = body["Status"].clone();
                check["Output"] = body["Output"].clone();
                ok(Value::Null)
            }
            None => ("404 Not Found", "Unknown check ID".to_owned()),
        },
        _ => ("405 Method Not Allowed", String::new()),
    }
}

fn register(known: &mut Known, body: Value) {
    known.registrations += 1;
    let id = body["ID"].as_str().unwrap_or_default().to_owned();
    let service = json!({
        "ID": id, "Service": body["Name"], "Tags": body["Tags"], "Address": body["Address"], "Port": body["Port"],
        "Meta": body["Meta"],
    });
    let before = known.checks.clone();
    known.checks.retain(|_, check| check["ServiceID"] != id.as_str());
    for check in body["Checks"].as_array().into_iter().flatten() {
        let check_id = check["CheckID"].as_str().unwrap_or_default();
        let status = before.get(check_id).map_or(&check["Status"], |check| &check["Status"]);
        let entry = json!({"CheckID": check_id, "ServiceID": id, "Status": status, "Output": ""});
        known.checks.insert(check_id.to_owned(), entry);
    }
    known.services.insert(id.clone(), service);
    known.bodies.insert(id, body);
}

fn encoded(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Undoes percent-encoding.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code.filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
