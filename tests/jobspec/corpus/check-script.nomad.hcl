job "check-script" {
  group "app" {
    network {
      port "http" {}
    }
    service {
      name = "web"
      port = "http"
      check {
        type                     = "script"
        command                  = "/bin/check"
        args                     = ["--fast", "${NOMAD_PORT_http}"]
        task                     = "main"
        interval                 = "30s"
        timeout                  = "5s"
        success_before_passing   = 2
        failures_before_critical = 3
        failures_before_warning  = 1
        notes                    = "looks at the queue"
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
