job "lang-heredocs" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      template {
        destination = "local/plain"
        data        = <<EOT
      first
          second
      EOT
      }
      template {
        destination = "local/indented"
        data        = <<-EOT
          first
            second

          {{ range nomadService "db" }}{{ .Address }}{{ end }}
        EOT
      }
      template {
        destination = "local/mixed"
        data        = <<-END
            host=${NOMAD_IP_http}
            home=$${HOME}
          date=%%{now}
            back\slash
          END
      }
    }
  }
}
