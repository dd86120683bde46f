job "task-restart" {
  type = "batch"

  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      restart {
        attempts = 2
        delay    = "15s"
        interval = "10s"
        mode     = "fail"
      }
    }
  }
}
