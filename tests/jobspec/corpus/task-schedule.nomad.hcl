job "task-schedule" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      schedule {
        cron {
          start    = "0 30 9 * * MON-FRI"
          end      = "30 17"
          timezone = "Europe/Berlin"
        }
      }
    }
  }
}
