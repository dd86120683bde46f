job "check-restart-defaults" {
  group "app" {
    network {
      port "http" {}
    }
    service {
      name = "web"
      port = "http"
      check {
        type      = "tcp"
        interval  = "10s"
        timeout   = "2s"
        on_update = "ignore"
        check_restart {
          limit = 1
        }
      }
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
