job "config-nested-objects" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        x = { y = { z = [{ w = 1 }] } }
      }
    }
  }
}
