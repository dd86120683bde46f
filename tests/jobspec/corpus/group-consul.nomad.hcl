job "group-consul" {
  group "app" {
    consul {
      namespace = "team"
      cluster   = "default"
      partition = "p1"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
