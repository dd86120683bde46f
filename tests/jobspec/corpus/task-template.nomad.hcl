job "task-template" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      template {
        data        = "{{ env \"NOMAD_PORT_http\" }}"
        destination = "local/port"
      }
    }
  }
}
