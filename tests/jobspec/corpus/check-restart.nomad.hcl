job "check-restart" {
  group "app" {
    network {
      port "http" {}
    }
    service {
      name = "web"
      port = "http"
      check_restart {
        limit           = 3
        grace           = "90s"
        ignore_warnings = true
      }
      check {
        type     = "tcp"
        interval = "10s"
        timeout  = "2s"
      }
      check {
        type     = "tcp"
        interval = "20s"
        timeout  = "2s"
        check_restart {
          limit = 5
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
