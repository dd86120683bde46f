job "job-two-groups" {
  update {
    max_parallel = 2
    canary       = 1
  }

  reschedule {
    delay = "1m"
  }

  group "web" {
    count = 3

    update {
      canary      = 0
      auto_revert = true
    }

    task "web" {
      driver = "docker"

      config {
        image = "nginx:1.27"
      }
    }

    task "log" {
      driver = "docker"

      config {
        image = "fluent/fluent-bit:3"
      }
    }
  }

  group "cache" {
    reschedule {
      max_delay = "10m"
    }

    restart {
      attempts = 5
    }

    task "redis" {
      driver = "docker"

      restart {
        delay = "1s"
      }

      config {
        image = "redis:7"
      }
    }
  }
}
