job "task-env-attribute" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      env = {
        "DOTTED.NAME" = "x"
        PLAIN         = 1.5
      }
    }
  }
}
