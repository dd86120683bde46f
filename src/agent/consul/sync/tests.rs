use std::time::Duration;

use super::*;
use crate::agent::consul::ConsulOptions;
use crate::agent::consul::fake::Consul;

fn registry(consul: &Consul) -> Registry {
    let options = ConsulOptions { address: consul.address.clone(), ..ConsulOptions::default() };
    Registry::new(Client::new(options).unwrap(), "this".to_owned())
}

fn service(name: &str, tag: &str) -> Registration {
    let id = format!("_nomad-task-a-group-g-{name}-http");
    let body = json!({
        "ID": id, "Name": name, "Tags": [tag], "Address": "10.0.0.1", "Port": 80,
        "Checks": [{"CheckID": format!("_nomad-check-{name}"), "Name": "c", "TCP": "10.0.0.1:80"}],
    });
    Registration { id, body }
}

/// Waits for a condition that a background task brings about.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < limit, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_wanted_is_registered_changed_and_removed() {
    let consul = Consul::start();
    let registry = registry(&consul);
    let work = tokio::spawn(registry.clone().run());
    registry.put(service("web", "one"));
    until("registered", || consul.services().len() == 1).await;
    let body = consul.body("web-http").unwrap();
    assert_eq!((&body["Meta"]["external-source"], &body["Port"]), (&json!("nomad"), &json!(80)));
    let count = consul.registrations();
    registry.put(service("web", "one"));
    registry.put(service("db", "x"));
    until("both", || consul.services().len() == 2).await;
    assert_eq!(consul.registrations(), count + 1, "the same again is nothing");
    registry.put(service("web", "two"));
    until("changed", || consul.body("web-http").is_some_and(|body| body["Tags"] == json!(["two"]))).await;
    registry.delete(&service("web", "").id);
    until("removed", || consul.services() == [service("db", "").id]).await;
    work.abort();
}

#[tokio::test]
async fn a_consul_that_lost_everything_is_told_again_and_checks_are_followed() {
    let consul = Consul::start();
    let registry = registry(&consul);
    let work = tokio::spawn(registry.clone().run());
    registry.put(service("web", "one"));
    until("registered", || consul.services().len() == 1).await;
    let states = registry.states();
    consul.set_checks("passing");
    until("seen", || states.borrow().get("_nomad-check-web").is_some_and(|state| state.0 == "passing")).await;
    consul.forget();
    until("registered again", || consul.services().len() == 1).await;
    registry.report("_nomad-check-web", "warning", "slow").await.unwrap();
    assert_eq!(consul.statuses(), ["warning"]);
    assert!(registry.report("_nomad-check-other", "passing", "").await.is_err());
    work.abort();
}

#[tokio::test]
async fn only_own_services_of_earlier_times_are_removed_and_not_at_once() {
    let consul = Consul::start();
    let planted = |owner: &str| json!({"Service": "old", "Meta": {"herder-agent": owner}});
    consul.plant("_nomad-task-old", planted("this"));
    consul.plant("_nomad-task-other", planted("another"));
    consul.plant("by-hand", json!({"Service": "hand"}));
    let registry = registry(&consul);
    registry.compare(false).await.unwrap();
    assert_eq!(consul.services().len(), 3, "its allocation may be about to be taken up");
    registry.compare(true).await.unwrap();
    assert_eq!(consul.services(), ["_nomad-task-other", "by-hand"]);
}

#[tokio::test]
async fn a_consul_that_is_away_is_an_error_with_its_address() {
    let address = {
        let consul = Consul::start();
        consul.address.clone()
    };
    let options = ConsulOptions { address: address.clone(), ..ConsulOptions::default() };
    let error = Client::new(options).unwrap().get("/v1/agent/self").await;
    // The listener may still be closing: then the connection is cut instead.
    assert!(error.unwrap_err().to_string().contains(&address));
}
