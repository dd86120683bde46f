job "task-dispatch-payload" {
  type = "batch"
  parameterized {}

  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      dispatch_payload {
        file = "input/payload.json"
      }
    }
  }
}
