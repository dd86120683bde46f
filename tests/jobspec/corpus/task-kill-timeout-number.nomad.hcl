job "task-kill-timeout-number" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      kill_timeout = 10000000000
    }
  }
}
