job "group-count-zero" {
  group "app" {
    count = 0

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
