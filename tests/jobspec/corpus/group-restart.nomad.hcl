job "group-restart" {
  group "app" {
    restart {
      attempts         = 10
      interval         = "5m"
      delay            = "25s"
      mode             = "delay"
      render_templates = true
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
