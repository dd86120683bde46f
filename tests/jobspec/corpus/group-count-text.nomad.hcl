job "group-count-text" {
  group "app" {
    count = "3"

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
