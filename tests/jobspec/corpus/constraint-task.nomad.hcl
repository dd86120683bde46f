job "constraint-task" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      constraint {
        attribute = "${attr.driver.docker.version}"
        operator  = "version"
        value     = ">= 20.10"
      }
    }
  }
}
