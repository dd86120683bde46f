job "group-meta" {
  group "app" {
    meta {
      role = "front"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
