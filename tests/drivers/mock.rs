//! The driver that does as it is told.

use std::time::Duration;

use herder::drivers::DriverError;
use herder::drivers::ExitStatus;
use serde_json::json;

use crate::support::Bench;

#[tokio::test]
async fn it_ends_as_it_was_told() {
    let mut bench = Bench::new("mock_driver", json!({"exit_signal": 9}));
    let killed = bench.run().await;
    assert_eq!((killed.code, killed.signal), (0, 9));
    bench.config.id.run = 1;
    bench.set_config(
        json!({"exit_code": 2, "exit_err_msg": "boom", "stdout_string": "a", "stdout_repeat": 2}),
    );
    let failed = bench.run().await;
    assert_eq!(failed, ExitStatus { code: 2, message: "boom".to_owned(), ..ExitStatus::default() });
    assert_eq!(bench.log("stdout"), "aaa");
    bench.finish().await;
}

#[tokio::test]
async fn it_says_more_while_it_runs() {
    let config =
        json!({"run_for": "60s", "stderr_string": "b", "stderr_repeat": 3, "stderr_repeat_duration": "5ms"});
    let mut bench = Bench::new("mock_driver", config);
    let handle = bench.start().await;
    bench.wait_for_log("stderr", "bbbb").await;
    bench.driver.stop(&handle, "", Duration::from_secs(1)).await.unwrap();
    assert_eq!(bench.wait(&handle).await.signal, 9);
    bench.finish().await;
}

#[tokio::test]
async fn errors_of_the_start_are_final_unless_told_otherwise() {
    let mut bench = Bench::new("mock_driver", json!({"start_error": "nope"}));
    assert_eq!(bench.try_start().await.unwrap_err(), DriverError::Fatal("nope".to_owned()));
    bench.set_config(json!({"start_error": "nope", "start_error_recoverable": true}));
    assert_eq!(bench.try_start().await.unwrap_err(), DriverError::Recoverable("nope".to_owned()));
    bench.set_config(json!({"run_for": "xx"}));
    let error = bench.try_start().await.unwrap_err().to_string();
    assert_eq!(error, "run_for xx not a valid duration: time: invalid duration \"xx\"");
    bench.finish().await;
}

#[tokio::test]
async fn its_network_and_commands_are_as_told() {
    let config = json!({"run_for": "60s", "driver_ip": "10.1.2.3", "driver_advertise": true, "driver_port_map": "http:80",
        "exec_command": [{"exit_code": 4, "stdout_string": "out", "stderr_string": "err"}]});
    let mut bench = Bench::new("mock_driver", config);
    let (handle, started) = bench.try_start().await.unwrap();
    assert_eq!(
        (started.address.as_deref(), started.advertise, started.ports["http"]),
        (Some("10.1.2.3"), true, 80)
    );
    assert_eq!(bench.driver.recover(&handle).await.unwrap(), started);
    let (code, output) = bench.driver.exec(&handle, &["x".to_owned()], Duration::from_secs(1)).await.unwrap();
    assert_eq!((code, output), (4, b"outerr".to_vec()));
    bench.finish().await;
}

#[tokio::test]
async fn a_crash_of_the_plugin_loses_the_task() {
    let mut bench = Bench::new("mock_driver", json!({"run_for": "60s", "plugin_exit_after": "10ms"}));
    let handle = bench.start().await;
    assert_eq!(bench.driver.wait(&handle).await, Err(DriverError::NotFound));
    assert_eq!(bench.driver.recover(&handle).await, Err(DriverError::NotFound));
    bench.finish().await;
}
