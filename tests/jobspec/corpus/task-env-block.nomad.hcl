job "task-env-block" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      env {
        PORT  = 8080
        DEBUG = true
        ADDR  = "${NOMAD_ADDR_http}"
        EMPTY = ""
      }
    }
  }
}
